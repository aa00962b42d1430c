//! Contracts of events: how they stand on the wire of existing systems, and what links them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "contracts/correlation.rs"]
mod correlation;
#[path = "contracts/formats.rs"]
mod formats;
#[cfg(all(feature = "kafka", feature = "redis-streams"))]
#[path = "contracts/servers.rs"]
mod servers;
#[path = "contracts/versions.rs"]
mod versions;
