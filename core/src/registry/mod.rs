//! Schema registries: where the schemas of data are kept, and data name theirs by its id.
//!
//! A route with `schema_registry = true` and a `codec` that has schemas (Avro, Protobuf, and JSON with
//! `#[event(schema)]`) writes its data in [Confluent's wire format](crate::codec::Frame): the type's schema is
//! registered, under a [subject](SubjectName), before the first event is sent. Data of a type without a
//! schema stand as they are. On a transport that has such a route, data
//! that come in this format are read by the schema that the registry has under their id, and so from
//! other writers and other versions too.
//!
//! - Schemas are asked for once: they never change. A bounded number is remembered.
//! - A registry that can't be reached is asked [again](Registry); after that, what was to be published is
//!   refused and may be tried again, and what came becomes a dead letter that says so, its bytes as they
//!   came.
//! - A bus in memory has a registry of its own, in memory.

mod memory;
#[cfg(test)]
mod tests;
mod transport;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

pub use memory::MemoryRegistry;

use crate::backoff;
use crate::codec::DataSchema;
use crate::config::Config;
use crate::transport::DynTransport;
use crate::{Error, ErrorKind, Result, Text, Topic};

/// How many schemas are remembered. Services have some dozens.
const REMEMBERED: u64 = 1000;

/// How often a registry is asked that can't be reached.
const ATTEMPTS: u32 = 3;

/// How long a registry is left alone that could not be reached.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// A schema registry.
///
/// What goes away by itself is a [retryable](Error::retryable) error: it is asked again.
#[async_trait]
pub trait SchemaRegistry: fmt::Debug + Send + Sync + 'static {
    /// The id of a schema under a subject, registered if it is not there.
    ///
    /// # Errors
    ///
    /// [`Encode`](ErrorKind::Encode) if the registry does not take the schema; those of the connection.
    ///
    /// # Cancel safety
    ///
    /// The schema may be registered all the same, which does no harm.
    async fn register(&self, subject: &str, schema: &DataSchema) -> Result<u32>;

    /// The schema of an id.
    ///
    /// # Errors
    ///
    /// [`Decode`](ErrorKind::Decode) if there is none; those of the connection.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed.
    async fn schema(&self, id: u32) -> Result<DataSchema>;
}

/// What a type's schema is called in a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SubjectName {
    /// `<topic>-value`: a topic has one schema. The default.
    #[default]
    Topic,
    /// The full name of the record or message: a topic may have several.
    Record,
    /// `<topic>-<record>`.
    TopicRecord,
}

impl SubjectName {
    /// The subject of a schema for a topic. A schema without a name goes by its topic.
    pub fn subject(self, topic: &Topic, schema: &DataSchema) -> Text {
        let topic = topic.name();
        match (self, schema.name()) {
            (Self::Record, Some(record)) => record.into(),
            (Self::TopicRecord, Some(record)) => format!("{topic}-{record}").into(),
            _ => format!("{topic}-value").into(),
        }
    }
}

/// A registry with what is remembered of it. Clones share it.
///
/// One that can't be reached is asked three times, after pauses that grow, and is then left alone for a
/// second.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Arc<dyn SchemaRegistry>,
    subject_name: SubjectName,
    timeout: Duration,
    schemas: Cache<u32, Arc<DataSchema>>,
    ids: Cache<(Text, &'static str), u32>,
    /// Until when the registry is left alone, and why.
    down: Mutex<Option<(Instant, Error)>>,
}

impl Registry {
    /// A registry, each call of which may take so long.
    pub fn new(
        registry: impl SchemaRegistry,
        subject_name: SubjectName,
        timeout: Duration,
    ) -> Self {
        Self::shared(Arc::new(registry), subject_name, timeout)
    }

    /// As [`new`](Self::new), of one that others have too.
    pub fn shared(
        registry: Arc<dyn SchemaRegistry>,
        subject_name: SubjectName,
        timeout: Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            registry,
            subject_name,
            timeout,
            schemas: Cache::new(REMEMBERED),
            ids: Cache::new(REMEMBERED),
            down: Mutex::default(),
        }))
    }

    /// The transport with this registry on top, if one of its routes asks for it.
    #[must_use]
    pub fn around(&self, config: &Config, name: &str, transport: DynTransport) -> DynTransport {
        let mut routes = config.routes.iter();
        let default = config.routing.default.as_ref();
        let asked = routes.any(|route| route.schema_registry && route.transport == name)
            || default.is_some_and(|route| route.schema_registry && route.transport == name);
        if asked {
            DynTransport::new(transport::Registered::new(transport, self.clone()))
        } else {
            transport
        }
    }

    /// The id of a type's schema in a topic.
    async fn id(&self, topic: &Topic, schema: &'static DataSchema) -> Result<u32> {
        let subject = self.0.subject_name.subject(topic, schema);
        let key = (subject, schema.text());
        if let Some(id) = self.0.ids.get(&key) {
            return Ok(id);
        }
        let registry = &*self.0.registry;
        let id = self.ask(|| registry.register(&key.0, schema)).await?;
        self.0.ids.insert(key, id);
        Ok(id)
    }

    /// The schema of an id.
    async fn schema(&self, id: u32) -> Result<Arc<DataSchema>> {
        if let Some(schema) = self.0.schemas.get(&id) {
            return Ok(schema);
        }
        let registry = &*self.0.registry;
        let schema = Arc::new(self.ask(|| registry.schema(id)).await?);
        self.0.schemas.insert(id, Arc::clone(&schema));
        Ok(schema)
    }

    /// Asks as often as is worth it.
    async fn ask<T, F>(&self, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.check_up()?;
        let mut attempt = 1;
        loop {
            let limit = self.0.timeout;
            let answer = timeout(limit, call()).await;
            let error = match answer {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) if !error.retryable() => return Err(error),
                Ok(Err(error)) => error,
                Err(_) => late(limit),
            };
            if attempt == ATTEMPTS {
                let until = Instant::now() + LEFT_ALONE;
                *self.down() = Some((until, error.duplicate()));
                return Err(error);
            }
            sleep(backoff::reconnect(attempt)).await;
            attempt += 1;
        }
    }

    /// The last error, while the registry is left alone.
    fn check_up(&self) -> Result<()> {
        let mut down = self.down();
        match &*down {
            Some((until, error)) if Instant::now() < *until => Err(error.duplicate()),
            _ => {
                *down = None;
                Ok(())
            }
        }
    }

    fn down(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Error)>> {
        self.0.down.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn late(limit: Duration) -> Error {
    let what = format!("the schema registry did not answer within {limit:?}");
    Error::new(ErrorKind::Timeout, what)
        .with_note("`timeout` under [schema_registry] says how long it may take")
}
