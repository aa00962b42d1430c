use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::layout::{object, text, time};
use super::shape::{
    Metadata, build, data_of, json_data, metadata, parse, record, take_text, unreadable,
    with_metadata, written_time,
};
use super::{Described, Format, Layout, Place};
use crate::event::extensions;
use crate::transport::{Headers, RawRecord};
use crate::{Event, Result};

/// `{ metadata: { eventId, eventType, eventVersion, timestamp, source, correlationId, userId }, payload }`.
///
/// Other members of the metadata are extensions, and extensions are members.
#[derive(Debug)]
pub(super) struct MetadataPayload;

#[derive(Serialize, Deserialize)]
struct Shape<'a> {
    metadata: Metadata,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// The version of data that does not say one.
const VERSION: &str = "1.0.0";

impl Format for MetadataPayload {
    fn name(&self) -> &'static str {
        "metadata_payload"
    }

    fn needs_json(&self) -> bool {
        true
    }

    fn layout(&self, events: &Described<'_>) -> Option<Layout> {
        let metadata = object(
            [
                ("eventId", text()),
                ("eventType", events.type_schema()),
                ("eventVersion", text()),
                ("source", text()),
            ],
            [
                ("timestamp", time()),
                ("subject", text()),
                ("correlationId", text()),
                ("causationId", text()),
                ("userId", text()),
            ],
        );
        Some(Layout::json(object(
            [("metadata", metadata), ("payload", events.data.clone())],
            [],
        )))
    }

    fn write(&self, event: &Event) -> Result<RawRecord> {
        let mut metadata = metadata(event, &[extensions::DATA_VERSION]);
        let version = event.data_version().unwrap_or(VERSION);
        for (name, value) in [
            ("eventId", Some(event.id())),
            ("eventType", Some(event.event_type())),
            ("eventVersion", Some(version)),
            ("timestamp", written_time(event).as_deref()),
            ("source", Some(event.source())),
            ("subject", event.subject()),
        ] {
            if let Some(value) = value {
                metadata.insert(name.to_owned(), value.into());
            }
        }
        let shape = Shape {
            metadata,
            payload: json_data(self.name(), event)?,
        };
        record(event, Headers::new(), &shape)
    }

    fn read(&self, record: &RawRecord, _: &Place<'_>) -> Result<Event> {
        let shape: Shape<'_> = parse(self.name(), record)?;
        let mut metadata = shape.metadata;
        let mut required = |name: &str| {
            let missing = || unreadable(self.name(), &format!("`metadata.{name}` is missing"));
            take_text(&mut metadata, name).ok_or_else(missing)
        };
        let mut builder = Event::builder(required("eventType")?)
            .id(required("eventId")?)
            .source(required("source")?);
        if let Some(version) = take_text(&mut metadata, "eventVersion") {
            builder = builder.data_version(version);
        }
        if let Some(subject) = take_text(&mut metadata, "subject") {
            builder = builder.subject(subject);
        }
        let time = take_text(&mut metadata, "timestamp");
        let builder = with_metadata(builder, metadata);
        let data = data_of(record, shape.payload);
        build(self.name(), builder, record, time.as_deref(), data)
    }
}
