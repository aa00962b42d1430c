#![doc = include_str!("docs.md")]

mod admin;
mod asking;
mod client;
mod config;
mod error;
mod factory;
mod ids;
mod publisher;
mod settle;
mod subscriber;
mod transport;

pub use admin::KafkaAdmin;
pub use config::{KafkaConfig, Property};
pub use factory::KafkaFactory;
pub use publisher::KafkaPublisher;
pub use settle::KafkaSettler;
pub use subscriber::KafkaSubscriber;
pub use transport::KafkaTransport;
