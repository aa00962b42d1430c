//! The Redis Streams transport of polybus.
