#![doc = include_str!("docs.md")]
#![forbid(unsafe_code)]

mod admin;
mod broker;
mod config;
mod factory;
mod publisher;
mod settle;
mod subscriber;
mod together;
mod transport;

pub use admin::MemoryAdmin;
pub use config::MemoryConfig;
pub use factory::MemoryFactory;
pub use publisher::MemoryPublisher;
pub use settle::MemorySettler;
pub use subscriber::MemorySubscriber;
pub use transport::MemoryTransport;
