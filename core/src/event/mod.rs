//! Events: CloudEvents 1.0 attributes, extensions and data.

mod builder;
mod cause;
mod contract;
mod data;
mod extension;
mod id;

use std::fmt;

use bytes::Bytes;
use triomphe::Arc;

pub use builder::EventBuilder;
pub(crate) use builder::is_extension_name;
pub(crate) use cause::on_behalf_of;
pub use contract::{Contract, SchemasOf};
pub use data::{EventData, EventDefaults, IntoEvent, TypeInfo, with_origin};
pub use extension::ExtensionValue;
pub use id::EventId;

use crate::{Text, Timestamp};

/// Names of the extension attributes that polybus itself reads and writes.
pub mod extensions {
    /// What order and partitioning go by
    /// (CloudEvents extension [partitioning](https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/partitioning.md)).
    pub const PARTITION_KEY: &str = "partitionkey";
    /// The semantic version of the data's shape.
    pub const DATA_VERSION: &str = "dataversion";
    /// What links the events of one business transaction.
    pub const CORRELATION_ID: &str = "correlationid";
    /// The id of the event that caused this one.
    pub const CAUSATION_ID: &str = "causationid";
    /// W3C trace context of the event's creation.
    pub const TRACE_PARENT: &str = "traceparent";
    /// W3C trace state of the event's creation.
    pub const TRACE_STATE: &str = "tracestate";
    /// The type of the aggregate that the event is of; the `subject` is its id.
    pub const AGGREGATE_TYPE: &str = "aggregatetype";
    /// The version of the aggregate that the event made.
    pub const AGGREGATE_VERSION: &str = "aggregateversion";
    /// The region or organisation that the event comes from, as `eu.de`.
    pub const ORIGIN: &str = "origin";
}

/// A [CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md) event.
///
/// Immutable and cheap to clone: a clone shares attributes and data. `source` and `id`
/// together identify an event; a redelivery has the same identity.
///
/// ```
/// use polybus_core::Event;
///
/// let event = Event::builder("deal.closed")
///     .source("deal-monitor")
///     .key("deal-123")
///     .json(&serde_json::json!({ "price": 7 }))?
///     .build()?;
/// assert_eq!(event.event_type(), "deal.closed");
/// assert_eq!(event.key(), Some("deal-123"));
/// # Ok::<(), polybus_core::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Event {
    head: Arc<Head>,
    data: Option<Bytes>,
}

#[derive(Debug, Clone, PartialEq)]
struct Head {
    id: EventId,
    attributes: Attributes,
}

/// The attributes but for the id. `partitionkey` and `dataversion`, which typed events always
/// carry, have fields of their own, so that the usual event needs no list of extensions.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Attributes {
    pub(crate) source: Text,
    pub(crate) event_type: Text,
    pub(crate) subject: Option<Text>,
    pub(crate) time: Option<Timestamp>,
    pub(crate) content_type: Option<Text>,
    pub(crate) schema: Option<Text>,
    pub(crate) partition_key: Option<Text>,
    pub(crate) data_version: Option<Text>,
    pub(crate) extensions: Vec<(Text, ExtensionValue)>,
}

impl Event {
    /// The version of the CloudEvents specification that events follow.
    pub const SPEC_VERSION: &'static str = "1.0";

    /// An event as it was received. What every event has was checked, and is not empty.
    pub(crate) fn received(id: EventId, attributes: Attributes, data: Option<Bytes>) -> Self {
        let head = Arc::new(Head { id, attributes });
        Self { head, data }
    }

    /// Starts an event of a type.
    pub fn builder(event_type: impl Into<Text>) -> EventBuilder {
        EventBuilder::new(event_type.into())
    }

    /// Attribute `id`: with `source` the identity of the event.
    pub fn id(&self) -> &str {
        self.head.id.as_str()
    }

    /// Attribute `source`: who published the event, usually a service's name.
    pub fn source(&self) -> &str {
        &self.head.attributes.source
    }

    /// Attribute `type`, as `deal.status.changed`.
    pub fn event_type(&self) -> &str {
        &self.head.attributes.event_type
    }

    pub(crate) fn type_text(&self) -> &Text {
        &self.head.attributes.event_type
    }

    pub(crate) fn version_text(&self) -> Option<&Text> {
        self.head.attributes.data_version.as_ref()
    }

    /// Attribute `subject`: what the event is about within its source.
    pub fn subject(&self) -> Option<&str> {
        self.head.attributes.subject.as_deref()
    }

    /// Attribute `time`: when it happened.
    pub fn time(&self) -> Option<Timestamp> {
        self.head.attributes.time
    }

    /// Attribute `datacontenttype`: the media type of the data.
    pub fn content_type(&self) -> Option<&str> {
        self.head.attributes.content_type.as_deref()
    }

    /// Attribute `dataschema`: a URI of the schema that the data follows.
    pub fn schema(&self) -> Option<&str> {
        self.head.attributes.schema.as_deref()
    }

    /// The data. `None` is no data at all (a tombstone on a compacted topic), which is not
    /// the same as empty data.
    pub fn data(&self) -> Option<&Bytes> {
        self.data.as_ref()
    }

    /// What order and partitioning go by: `partitionkey`, else `subject`, else nothing.
    pub fn key(&self) -> Option<&str> {
        self.partition_key().or(self.subject())
    }

    /// Extension `partitionkey`.
    pub fn partition_key(&self) -> Option<&str> {
        self.head.attributes.partition_key.as_deref()
    }

    /// Extension `dataversion`: the semantic version of the data's shape.
    pub fn data_version(&self) -> Option<&str> {
        self.head.attributes.data_version.as_deref()
    }

    /// Extension `correlationid`: what links the events of one business transaction.
    pub fn correlation_id(&self) -> Option<&str> {
        self.text_extension(extensions::CORRELATION_ID)
    }

    /// Extension `causationid`: the id of the event that caused this one.
    pub fn causation_id(&self) -> Option<&str> {
        self.text_extension(extensions::CAUSATION_ID)
    }

    /// An extension attribute by its name. A clone of the value, which is cheap.
    pub fn extension(&self, name: &str) -> Option<ExtensionValue> {
        self.extensions()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// All extension attributes that are set.
    pub fn extensions(&self) -> impl Iterator<Item = (&str, ExtensionValue)> {
        let own = [
            (
                extensions::PARTITION_KEY,
                &self.head.attributes.partition_key,
            ),
            (extensions::DATA_VERSION, &self.head.attributes.data_version),
        ];
        let own = own
            .into_iter()
            .filter_map(|(name, value)| Some((name, ExtensionValue::String(value.clone()?))));
        let others = self.head.attributes.extensions.iter();
        own.chain(others.map(|(name, value)| (name.as_str(), value.clone())))
    }

    /// The names of the extensions that have no attribute of their own here.
    pub(crate) fn own_extensions(&self) -> impl Iterator<Item = &str> {
        let extensions = self.head.attributes.extensions.iter();
        extensions.map(|(name, _)| name.as_str())
    }

    /// The size of attributes and data in bytes, without what a transport adds to it. Size
    /// limits and the bounds of queues go by it.
    pub fn size(&self) -> usize {
        let head = &self.head.attributes;
        let optional = [
            &head.subject,
            &head.content_type,
            &head.schema,
            &head.partition_key,
            &head.data_version,
        ];
        let optional: usize = optional.into_iter().flatten().map(Text::len).sum();
        let extensions: usize = head
            .extensions
            .iter()
            .map(|(name, value)| name.len() + value.size())
            .sum();
        self.head.id.len()
            + head.source.len()
            + head.event_type.len()
            + optional
            + extensions
            + self.data.as_ref().map_or(0, Bytes::len)
    }

    /// A builder that starts from this event, its identity and time included.
    pub fn to_builder(&self) -> EventBuilder {
        EventBuilder::from_event(self.clone())
    }

    fn text_extension(&self, name: &str) -> Option<&str> {
        let (_, value) = self
            .head
            .attributes
            .extensions
            .iter()
            .find(|(known, _)| known == name)?;
        value.as_str()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Event");
        debug
            .field("id", &self.id())
            .field("source", &self.source())
            .field("type", &self.event_type())
            .field("key", &self.key());
        for (name, value) in self.extensions() {
            debug.field(name, &value);
        }
        // The data may be large or private: its size is what a log needs.
        debug
            .field("data_bytes", &self.data.as_ref().map(Bytes::len))
            .finish()
    }
}

#[cfg(test)]
mod tests;
