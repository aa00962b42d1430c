//! Publishing through batches, bounds, retries and layers, on transports that fail as told.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "publishing/batches.rs"]
mod batches;
#[path = "publishing/ends.rs"]
mod ends;
#[path = "publishing/fake.rs"]
mod fake;
#[path = "publishing/layers.rs"]
mod layers;
#[path = "publishing/order.rs"]
mod order;
#[path = "publishing/retries.rs"]
mod retries;
#[path = "publishing/settings.rs"]
mod settings;
#[path = "publishing/threads.rs"]
mod threads;
