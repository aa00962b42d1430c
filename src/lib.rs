//! One event bus over Kafka, Redis Streams and memory.
