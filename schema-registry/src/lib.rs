//! The client of polybus for schema registries that speak
//! [Confluent's API](https://docs.confluent.io/platform/current/schema-registry/develop/api.html):
//! Confluent's own, Karapace, Apicurio, Redpanda's.
//!
//! An author of a service names the registry in the config, and routes ask for it:
//!
//! ```toml
//! [schema_registry]
//! url      = "https://registry.example.com"
//! user     = "service"                       # basic authentication
//! password = "${REGISTRY_PASSWORD}"
//! ca_file  = "/etc/ssl/our-authority.pem"    # default: those that the system trusts
//! timeout  = "5s"                            # of one call
//! subject  = "topic"                         # or `record`, `topic_record`
//! register = true                            # `false`: schemas have to be there
//!
//! [[routes]]
//! pattern         = "order.*"
//! transport       = "kafka"
//! topic           = "orders"
//! codec           = "avro"
//! schema_registry = true
//! ```
//!
//! [`registry`](polybus_core::registry) says what comes of it.
//!
//! A type's schema is registered whole. An Avro schema of others that refers to types under subjects of their
//! own (Confluent's `references`) is read with these, at most a hundred.

#![forbid(unsafe_code)]

mod client;
mod config;
mod references;
mod tls;

pub use client::SchemaRegistryClient;
pub use config::SchemaRegistryConfig;

use polybus_core::Result;
use polybus_core::config::Section;
use polybus_core::registry::Registry;

/// The registry that a section of a config names. Nothing is asked yet.
///
/// # Errors
///
/// [`Config`](polybus_core::ErrorKind::Config), with file, line and key, for settings that are wrong.
pub fn connect(section: &Section) -> Result<Registry> {
    let config = SchemaRegistryConfig::from_section(section)?;
    let (subject, timeout) = (config.subject, config.timeout);
    let client = SchemaRegistryClient::new(config)?;
    Ok(Registry::new(client, subject, timeout))
}
