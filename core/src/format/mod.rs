//! Formats: how the events of a route stand on the wire where that is not the transport's own way.
//!
//! A route chooses one with `format = "..."`; without it a transport writes CloudEvents in its own
//! way. A format makes a [record](RawRecord) of an event and an event of a record, so it works alike
//! on every transport. What the transport itself reads as an event is one, whatever the format
//! says: a topic may change from one to the other while it is read.
//!
//! | name | the value | where from |
//! |---|---|---|
//! | `structured` | the whole event in the CloudEvents JSON format | [CloudEvents](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md) |
//! | `plain` | the data alone, the key in the record's key | most existing topics |
//! | `flat` | `{ id, timestamp, type, source, version, payload }` | |
//! | `entity` | `{ id, type, source, subject, timestamp, data, metadata, correlation_id, causation_id }` | |
//! | `domain` | `{ id, type, aggregateId, aggregateType, version, data, metadata, timestamp }` | domain events |
//! | `metadata_payload` | `{ metadata: { eventId, eventType, eventVersion, timestamp, source, .. }, payload }` | |
//! | `header_body` | `{ header: { id, type, origin, timestamp, hash, version }, body }` | |
//!
//! [`Formats::with`] adds one of your own.

mod domain;
mod entity;
mod flat;
mod header_body;
mod layout;
mod metadata_payload;
mod plain;
mod shape;
mod structured;
mod table;
#[cfg(test)]
mod tests;
mod transport;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use layout::{Described, Layout};
pub use table::FormatTable;

use crate::transport::{Position, RawRecord};
use crate::{Event, Result, Text, Topic};

/// How events stand on the wire.
pub trait Format: fmt::Debug + Send + Sync + 'static {
    /// The name that routes choose it by: lower-case words with underscores.
    fn name(&self) -> &str;

    /// Whether records do not say their event type, so that only a route for one type can have it.
    fn needs_type(&self) -> bool {
        false
    }

    /// Whether data stand within the record as JSON, so that only a route whose codec writes JSON can have
    /// it.
    fn needs_json(&self) -> bool {
        false
    }

    /// What records of some events look like, for documents such as
    /// [AsyncAPI](https://www.asyncapi.com)'s. Default: nothing is known of them.
    fn layout(&self, events: &Described<'_>) -> Option<Layout> {
        let _ = events;
        None
    }

    /// The record of an event.
    ///
    /// # Errors
    ///
    /// [`Encode`](crate::ErrorKind::Encode) if the event has what the format can't hold.
    fn write(&self, event: &Event) -> Result<RawRecord>;

    /// The event of a record.
    ///
    /// # Errors
    ///
    /// [`Decode`](crate::ErrorKind::Decode) if it is none, saying what is missing or wrong. The record
    /// is kept.
    fn read(&self, record: &RawRecord, place: &Place<'_>) -> Result<Event>;
}

/// Where a record was found: for formats that leave out what an event must have.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Place<'a> {
    /// The topic.
    pub topic: &'a Topic,
    /// Where it stands in its topic. The same at each delivery.
    pub position: Position,
    /// The event type of its route, if that takes only one.
    pub event_type: Option<&'a str>,
}

impl<'a> Place<'a> {
    /// A place in a topic whose records have several types.
    pub fn new(topic: &'a Topic, position: Position) -> Self {
        Self {
            topic,
            position,
            event_type: None,
        }
    }

    /// Sets the event type of the route.
    #[must_use]
    pub fn with_event_type(mut self, event_type: Option<&'a str>) -> Self {
        self.event_type = event_type;
        self
    }
}

/// The formats that routes can choose, by name.
#[derive(Debug, Clone)]
pub struct Formats(BTreeMap<Text, Arc<dyn Format>>);

impl Default for Formats {
    /// Those of the [module's table](self).
    fn default() -> Self {
        Self(BTreeMap::new())
            .with(structured::Structured)
            .with(plain::Plain)
            .with(flat::Flat)
            .with(entity::Entity)
            .with(domain::Domain)
            .with(metadata_payload::MetadataPayload)
            .with(header_body::HeaderBody)
    }
}

impl Formats {
    /// Adds a format. One of the same name is replaced.
    #[must_use]
    pub fn with(mut self, format: impl Format) -> Self {
        self.0.insert(format.name().into(), Arc::new(format));
        self
    }

    /// A format by its name.
    pub fn find(&self, name: &str) -> Option<&Arc<dyn Format>> {
        self.0.get(name)
    }

    /// The names of all formats.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(Text::as_str)
    }
}
