#![doc = include_str!("docs.md")]

mod access;
mod admin;
mod asking;
mod client;
mod config;
mod error;
mod factory;
mod ids;
mod properties;
mod publisher;
mod settle;
mod subscriber;
mod transport;
mod writing;

pub use access::{SaslMechanism, Secret};
pub use admin::KafkaAdmin;
pub use config::{GroupProtocol, KafkaConfig};
pub use factory::KafkaFactory;
pub use properties::Property;
pub use publisher::KafkaPublisher;
pub use settle::KafkaSettler;
pub use subscriber::KafkaSubscriber;
pub use transport::KafkaTransport;
pub use writing::{Acks, Compression, Format, Partitioner};
