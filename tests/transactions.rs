//! Events that are published all or none, and handlers whose events take effect once.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "transactions/handling.rs"]
mod handling;
#[path = "transactions/publishing.rs"]
mod publishing;
#[cfg(all(feature = "kafka", feature = "redis-streams"))]
#[path = "transactions/servers.rs"]
mod servers;
#[path = "transactions/shop.rs"]
mod shop;
