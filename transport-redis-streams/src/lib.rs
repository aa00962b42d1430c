#![doc = include_str!("docs.md")]
#![forbid(unsafe_code)]

mod admin;
mod claim;
mod client;
mod cluster;
mod config;
mod connection;
mod discovery;
mod entry;
mod error;
mod heartbeat;
mod held;
mod idempotency;
mod inbox;
mod line;
mod member;
mod packed;
mod presence;
mod publisher;
mod reader;
mod readers;
mod reply;
mod resp;
mod scatter;
mod scripts;
mod sentinels;
mod settle;
mod subscriber;
mod tls;
mod together;
mod transport;
mod wire;
mod writing;

pub use admin::RedisAdmin;
pub use config::RedisConfig;
pub use idempotency::RedisIdempotency;
pub use publisher::RedisPublisher;
pub use settle::RedisSettler;
pub use subscriber::RedisSubscriber;
pub use transport::{RedisFactory, RedisTransport};
pub use writing::{Format, Trim};

/// The `kind` of this transport in the config.
pub const KIND: &str = "redis-streams";
