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
#[cfg(all(
    feature = "avro",
    feature = "message-pack",
    feature = "protobuf",
    feature = "schema",
    feature = "schema-registry",
    feature = "kafka",
    feature = "redis-streams"
))]
#[path = "contracts/registry_servers.rs"]
mod registry_servers;
#[cfg(feature = "schema")]
#[path = "contracts/schemas_of_types.rs"]
mod schemas_of_types;
#[cfg(all(feature = "kafka", feature = "redis-streams"))]
#[path = "contracts/servers.rs"]
mod servers;
#[cfg(all(
    feature = "kafka",
    feature = "redis-streams",
    feature = "schema",
    feature = "garde"
))]
#[path = "contracts/servers_validate.rs"]
mod servers_validate;
#[cfg(all(feature = "schema", feature = "garde"))]
#[path = "contracts/validation.rs"]
mod validation;
#[path = "contracts/versions.rs"]
mod versions;
