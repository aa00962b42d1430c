//! The contract of polybus: everything that needs no broker client.
//!
//! An author of a service uses the facade crate `polybus`. This crate is for authors of
//! transports, codecs and middleware:
//!
//! - [`Event`] is a CloudEvents 1.0 event; [`EventData`] ties a Rust type to its event types.
//! - [`Config`](config::Config) is a config file, [`RouteTable`](routing::RouteTable) says where an
//!   event type travels, by [`Pattern`]s.
//! - [`handler`] holds handlers and their extractors, [`runtime`] what runs them.
//! - [`idempotency`] holds what keeps an event that comes twice from being handled twice.
//! - [`transport`] holds the traits a transport implements and what passes through them.
//! - [`codec`] says how data are written, [`registry`] where their schemas are kept.
//! - [`validation`] holds what an event has to be.
//! - [`Error`] is the one error type.

#![forbid(unsafe_code)]

#[doc(hidden)]
pub mod __private;
mod backoff;
pub mod codec;
pub mod config;
pub mod envelope;
mod error;
pub mod event;
pub mod format;
pub mod handler;
pub mod idempotency;
pub mod middleware;
pub mod pattern;
pub mod registry;
pub mod routing;
pub mod runtime;
pub mod text;
pub mod time;
pub mod topic;
pub mod transport;
pub mod validation;
pub mod version;
pub mod watermark;

#[cfg(feature = "schema")]
pub use schemars;

pub use codec::Codec;
pub use error::{BoxError, Effect, Error, ErrorKind, Result};
pub use event::{
    Event, EventBuilder, EventData, EventDefaults, ExtensionValue, IntoEvent, TypeInfo,
};
pub use pattern::Pattern;
pub use text::Text;
pub use time::Timestamp;
pub use topic::Topic;
