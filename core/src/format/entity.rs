use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::layout::{object, text, time};
use super::shape::{
    Metadata, Str, build, data_of, json_data, metadata, parse, record, with_metadata, written_time,
};
use super::{Described, Format, Layout, Place};
use crate::event::extensions;
use crate::transport::{Headers, RawRecord};
use crate::{Event, Result, Text};

/// `{ id, type, source, subject, timestamp, data, metadata, correlation_id, causation_id }`, and the
/// headers `event_type` and `source`. Metadata are texts.
#[derive(Debug)]
pub(super) struct Entity;

#[derive(Serialize, Deserialize)]
struct Shape<'a> {
    #[serde(borrow)]
    id: Str<'a>,
    #[serde(borrow, rename = "type")]
    event_type: Str<'a>,
    #[serde(borrow)]
    source: Str<'a>,
    #[serde(borrow, default)]
    subject: Option<Str<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<Str<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    causation_id: Option<Str<'a>>,
}

impl Format for Entity {
    fn name(&self) -> &'static str {
        "entity"
    }

    fn needs_json(&self) -> bool {
        true
    }

    fn layout(&self, events: &Described<'_>) -> Option<Layout> {
        let metadata = json!({ "type": "object", "additionalProperties": text() });
        let value = object(
            [
                ("id", text()),
                ("type", events.type_schema()),
                ("source", text()),
                ("subject", text()),
                ("data", events.data.clone()),
            ],
            [
                ("timestamp", time()),
                ("metadata", metadata),
                ("correlation_id", text()),
                ("causation_id", text()),
            ],
        );
        let headers = [("event_type", events.type_schema()), ("source", text())];
        Some(Layout::json(value).with_headers(object(headers, [])))
    }

    fn write(&self, event: &Event) -> Result<RawRecord> {
        let elsewhere = [extensions::CORRELATION_ID, extensions::CAUSATION_ID];
        let mut metadata = metadata(event, &elsewhere);
        for value in metadata.values_mut() {
            if !value.is_string() {
                *value = value.to_string().into();
            }
        }
        let shape = Shape {
            id: event.id().into(),
            event_type: event.event_type().into(),
            source: event.source().into(),
            subject: Some(event.subject().unwrap_or_default().into()),
            timestamp: written_time(event),
            data: json_data(self.name(), event)?,
            metadata: Some(metadata).filter(|metadata| !metadata.is_empty()),
            correlation_id: event.correlation_id().map(Str::from),
            causation_id: event.causation_id().map(Str::from),
        };
        let header = |name, value: &str| {
            let value = Bytes::copy_from_slice(value.as_bytes());
            (Text::new_static(name), Some(value))
        };
        let headers = Headers::from_iter([
            header("event_type", event.event_type()),
            header("source", event.source()),
        ]);
        record(event, headers, &shape)
    }

    fn read(&self, record: &RawRecord, _: &Place<'_>) -> Result<Event> {
        let shape: Shape<'_> = parse(self.name(), record)?;
        let mut builder = Event::builder(shape.event_type.0)
            .id(shape.id.0.as_ref())
            .source(shape.source.0);
        if let Some(subject) = shape.subject.filter(|subject| !subject.0.is_empty()) {
            builder = builder.subject(subject.0);
        }
        builder = with_metadata(builder, shape.metadata.unwrap_or_default());
        if let Some(id) = shape.correlation_id {
            builder = builder.correlation(id.0);
        }
        if let Some(id) = shape.causation_id {
            builder = builder.causation(id.0);
        }
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
