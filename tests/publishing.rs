//! Publishing through batches, bounds, retries and layers, on transports that fail as told, and on
//! real servers that fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "publishing/batches.rs"]
mod batches;
#[path = "publishing/ends.rs"]
mod ends;
#[path = "publishing/fake.rs"]
mod fake;
#[cfg(any(feature = "redis-streams", feature = "kafka"))]
#[path = "publishing/faults.rs"]
mod faults;
#[cfg(feature = "kafka")]
#[path = "publishing/kafka_faults.rs"]
mod kafka_faults;
#[path = "publishing/layers.rs"]
mod layers;
#[path = "publishing/order.rs"]
mod order;
#[path = "publishing/own_layers.rs"]
mod own_layers;
#[cfg(feature = "redis-streams")]
#[path = "publishing/redis_faults.rs"]
mod redis_faults;
#[path = "publishing/retries.rs"]
mod retries;
#[path = "publishing/settings.rs"]
mod settings;
#[path = "publishing/threads.rs"]
mod threads;
