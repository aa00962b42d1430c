//! The clients themselves, used in the best way that is known for each.

pub mod kafka;
pub mod kafka_batches;
pub mod kafka_consumer;
pub mod redis;
pub mod redis_consumer;
