//! Contracts of events: how they stand on the wire of existing systems, and what links them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(all(feature = "avro", feature = "message-pack", feature = "protobuf"))]
#[path = "contracts/codecs.rs"]
mod codecs;
#[path = "contracts/correlation.rs"]
mod correlation;
#[path = "contracts/formats.rs"]
mod formats;
#[cfg(all(
    feature = "avro",
    feature = "message-pack",
    feature = "protobuf",
    feature = "schema-registry"
))]
#[path = "contracts/registry.rs"]
mod registry;
#[cfg(all(feature = "kafka", feature = "redis-streams"))]
#[path = "contracts/servers.rs"]
mod servers;
#[path = "contracts/versions.rs"]
mod versions;
