//! One event bus over Kafka, Redis Streams and memory.
//!
//! A service publishes and handles typed events; a config file says which event types travel on
//! which transport; unit tests run the same program in memory. Every guarantee means the same
//! thing on each transport.
//!
//! ```
//! use polybus::{Bus, Config, Event, Payload};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Event, Serialize, Deserialize)]
//! #[event(type = "user.created", version = "1.0.0", key = user_id)]
//! struct UserCreated {
//!     user_id: String,
//!     email: String,
//! }
//!
//! async fn welcome(Payload(user): Payload<UserCreated>) {
//!     println!("welcome, {}", user.email);
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> polybus::Result<()> {
//! let config = Config::parse(
//!     r#"
//!         [service]
//!         name = "accounts"
//!         [transports.local]
//!         kind = "memory"
//!         [[routes]]
//!         pattern   = "user.*"
//!         transport = "local"
//!         topic     = "user-events"
//!     "#,
//!     "polybus.toml",
//! )?;
//! let bus = Bus::builder().config(config).build().await?;
//! bus.subscribe("welcome-mails").on(welcome).start().await?;
//! bus.publish(UserCreated { user_id: "u1".into(), email: "a@b.c".into() }).await?;
//! # let _ =
//! bus.close("10s").await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | brings |
//! |---|---|
//! | `memory` (default) | `kind = "memory"`, [`BusBuilder::in_memory`] and [`TestBus::from_file`] for tests |
//! | `redis-streams` | `kind = "redis-streams"` |
//! | `kafka` | `kind = "kafka"` (builds librdkafka: needs a C compiler, make and perl) |
//! | `console` | `kind = "console"`: prints events, for development |
//! | `asyncapi` | `Bus::asyncapi`: the AsyncAPI document of the service |
//! | `schema` | JSON Schemas of events: `#[event(schema)]` and files of them, for [`validation`] |
//! | `garde` | `#[event(garde)]`: rules by the crate garde, for [`validation`] |
//! | `full` | all of them |

#![forbid(unsafe_code)]

#[cfg(feature = "asyncapi")]
mod asyncapi;
mod builder;
mod bus;
#[cfg(feature = "console")]
pub mod console;
mod dead_letters;
mod failed;
mod kinds;
mod lifecycle;
mod made;
mod publish;
mod registries;
mod report;
mod signal;
mod status;
mod stores;
mod subscription;
mod takes;
pub mod testing;
mod topic_plan;
mod topics;
mod transaction;

#[cfg(feature = "asyncapi")]
pub use asyncapi::AsyncApi;
pub use builder::BusBuilder;
pub use bus::Bus;
pub use dead_letters::{DeadLetters, Letter, Letters, Page, Purge, Replay, ReplayReport};
pub use failed::Failed;
pub use lifecycle::TopicLag;
pub use made::BusEvent;
pub use publish::Enqueued;
pub use report::{CloseReport, Receipt, SubscriptionReport};
pub use signal::shutdown_signal;
pub use status::{SubscriptionState, SubscriptionStatus};
pub use subscription::{Subscribe, Subscription};
pub use testing::TestBus;
pub use topic_plan::TopicPlan;
pub use topics::Topics;

pub use polybus_core::config::Config;
pub use polybus_core::handler::{
    Acknowledge, Batch, BatchHandler, Context, Entry, ErrorClass, FailureKind, FromDelivery,
    FromRef, Handler, IntoVerdict, Payload, Permanent, RawEvent, Retryable, State, Verdict,
};
pub use polybus_core::middleware::{FailedEvent, PublishStats, Transaction};
pub use polybus_core::transport::{Headers, Outcome, Position, Start};
pub use polybus_core::{
    BoxError, Codec, Effect, Error, ErrorKind, Event, EventBuilder, EventData, EventDefaults,
    ExtensionValue, IntoEvent, Pattern, Result, Text, Timestamp, Topic, TypeInfo,
};
pub use polybus_core::{
    codec, config, envelope, event, format, handler, idempotency, middleware, registry, routing,
    runtime, time, topic, transport, validation, version,
};
/// Writes the [`EventData`] of a type.
pub use polybus_macros::Event;

#[doc(hidden)]
pub use polybus_core::__private;

/// For `#[derive(JsonSchema)]` beside `#[event(schema)]`, with `#[schemars(crate = "polybus::schemars")]`.
#[cfg(feature = "schema")]
pub use polybus_core::schemars;

#[cfg(feature = "kafka")]
pub use polybus_kafka as kafka;
#[cfg(feature = "memory")]
pub use polybus_memory as memory;
#[cfg(feature = "redis-streams")]
pub use polybus_redis_streams as redis_streams;
