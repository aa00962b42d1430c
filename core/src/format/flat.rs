use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::layout::{object, text, time};
use super::shape::{Str, build, data_of, json_data, parse, record, written_time};
use super::{Described, Format, Layout, Place};
use crate::transport::{Headers, RawRecord};
use crate::{Event, Result};

/// `{ id, timestamp, type, source, version, payload }`.
///
/// The key is the record's, and the id where there is none. Subject and extensions other than the
/// data's version are not written.
#[derive(Debug)]
pub(super) struct Flat;

#[derive(Serialize, Deserialize)]
struct Shape<'a> {
    #[serde(borrow)]
    id: Str<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(borrow, rename = "type")]
    event_type: Str<'a>,
    #[serde(borrow)]
    source: Str<'a>,
    #[serde(borrow, default)]
    version: Option<Str<'a>>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// The version of data that does not say one.
const VERSION: &str = "1.0";

impl Format for Flat {
    fn name(&self) -> &'static str {
        "flat"
    }

    fn needs_json(&self) -> bool {
        true
    }

    fn layout(&self, events: &Described<'_>) -> Option<Layout> {
        Some(Layout::json(object(
            [
                ("id", text()),
                ("type", events.type_schema()),
                ("source", text()),
                ("version", text()),
                ("payload", events.data.clone()),
            ],
            [("timestamp", time())],
        )))
    }

    fn write(&self, event: &Event) -> Result<RawRecord> {
        let shape = Shape {
            id: event.id().into(),
            timestamp: written_time(event),
            event_type: event.event_type().into(),
            source: event.source().into(),
            version: Some(event.data_version().unwrap_or(VERSION).into()),
            payload: json_data(self.name(), event)?,
        };
        let mut record = record(event, Headers::new(), &shape)?;
        record
            .key
            .get_or_insert_with(|| bytes::Bytes::copy_from_slice(event.id().as_bytes()));
        Ok(record)
    }

    fn read(&self, record: &RawRecord, _: &Place<'_>) -> Result<Event> {
        let shape: Shape<'_> = parse(self.name(), record)?;
        let mut builder = Event::builder(shape.event_type.0)
            .id(shape.id.0.as_ref())
            .source(shape.source.0);
        if let Some(version) = shape.version {
            builder = builder.data_version(version.0);
        }
        let data = data_of(record, shape.payload);
        build(
            self.name(),
            builder,
            record,
            shape.timestamp.as_deref(),
            data,
        )
    }
}
