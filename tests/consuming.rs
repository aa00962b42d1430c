//! Consuming on a real Redis and a real Kafka: what goes wrong, and that nothing is lost by it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "consuming/crashes.rs"]
mod crashes;
#[path = "consuming/long.rs"]
mod long;
#[path = "consuming/place.rs"]
mod place;
#[path = "consuming/poison.rs"]
mod poison;
#[path = "consuming/put_away.rs"]
mod put_away;
#[path = "consuming/seeking.rs"]
mod seeking;
#[path = "consuming/sharing.rs"]
mod sharing;
