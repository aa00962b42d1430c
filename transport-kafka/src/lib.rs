//! The Kafka transport of polybus.
