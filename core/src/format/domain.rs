use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::layout::{object, text, time};
use super::shape::{
    Metadata, Str, build, data_of, json_data, metadata, parse, record, take_text, with_metadata,
    written_time,
};
use super::{Described, Format, Layout, Place};
use crate::event::extensions;
use crate::transport::{Headers, RawRecord};
use crate::{Error, ErrorKind, Event, ExtensionValue, Result};

/// `{ id, type, aggregateId, aggregateType, version, data, metadata, timestamp }`.
///
/// The aggregate's id is the subject, or else the key; its type and its version are the extensions
/// `aggregatetype` and `aggregateversion`. Without them the type is the first segment of the event type,
/// with a capital, and the version is 1. The source stands in the metadata; an event read without one
/// has the topic as its source.
#[derive(Debug)]
pub(super) struct Domain;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape<'a> {
    #[serde(borrow)]
    id: Str<'a>,
    #[serde(borrow, rename = "type")]
    event_type: Str<'a>,
    #[serde(borrow)]
    aggregate_id: Str<'a>,
    #[serde(borrow)]
    aggregate_type: Str<'a>,
    version: i32,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
}

impl Format for Domain {
    fn name(&self) -> &'static str {
        "domain"
    }

    fn needs_json(&self) -> bool {
        true
    }

    fn layout(&self, events: &Described<'_>) -> Option<Layout> {
        Some(Layout::json(object(
            [
                ("id", text()),
                ("type", events.type_schema()),
                ("aggregateId", text()),
                ("aggregateType", text()),
                ("version", json!({ "type": "integer" })),
                ("data", events.data.clone()),
                ("metadata", object([("source", text())], [])),
            ],
            [("timestamp", time())],
        )))
    }

    fn write(&self, event: &Event) -> Result<RawRecord> {
        let aggregate_id = event.subject().or(event.key()).ok_or_else(|| {
            Error::new(
                ErrorKind::Encode,
                "format `domain` needs the id of an aggregate, and the event has no subject and no key",
            )
            .with_note(format!("event of type `{}`, id `{}`", event.event_type(), event.id()))
        })?;
        let aggregate_type = event.extension(extensions::AGGREGATE_TYPE);
        let aggregate_type = aggregate_type.map_or_else(
            || capitalized(event.event_type()),
            |aggregate_type| aggregate_type.to_string(),
        );
        let version = match event.extension(extensions::AGGREGATE_VERSION) {
            Some(ExtensionValue::Integer(version)) => version,
            // Headers and fields carry text only.
            Some(ExtensionValue::String(text)) => text.parse().unwrap_or(1),
            _ => 1,
        };
        let elsewhere = [extensions::AGGREGATE_TYPE, extensions::AGGREGATE_VERSION];
        let mut metadata = metadata(event, &elsewhere);
        metadata.insert("source".to_owned(), event.source().into());
        let shape = Shape {
            id: event.id().into(),
            event_type: event.event_type().into(),
            aggregate_id: aggregate_id.into(),
            aggregate_type: aggregate_type.as_str().into(),
            version,
            data: json_data(self.name(), event)?,
            metadata: Some(metadata),
            timestamp: written_time(event),
        };
        record(event, Headers::new(), &shape)
    }

    fn read(&self, record: &RawRecord, place: &Place<'_>) -> Result<Event> {
        let shape: Shape<'_> = parse(self.name(), record)?;
        let mut metadata = shape.metadata.unwrap_or_default();
        let source = take_text(&mut metadata, "source").filter(|source| !source.is_empty());
        let builder = Event::builder(shape.event_type.0)
            .id(shape.id.0.as_ref())
            .source(source.unwrap_or_else(|| place.topic.name().to_owned()))
            .subject(shape.aggregate_id.0);
        let builder = with_metadata(builder, metadata)
            .extension(extensions::AGGREGATE_TYPE, shape.aggregate_type.0.as_ref())
            .extension(
                extensions::AGGREGATE_VERSION,
                ExtensionValue::Integer(shape.version),
            );
        let data = data_of(record, shape.data);
        build(
            self.name(),
            builder,
            record,
            shape.timestamp.as_deref(),
            data,
        )
    }
}

/// The first segment of an event type as the name of a type: `policy.created` is of a `Policy`.
fn capitalized(event_type: &str) -> String {
    let first = event_type.split('.').next().unwrap_or_default();
    let mut letters = first.chars();
    let capital = letters.next().map(|letter| letter.to_ascii_uppercase());
    capital.into_iter().chain(letters).collect()
}
