use bytes::Bytes;
use serde_json::json;

use super::layout::{object, text, time};
use super::shape::unreadable;
use super::{Described, Format, Layout, Place};
use crate::envelope::json as envelope;
use crate::transport::{Headers, RawRecord};
use crate::{Codec, Event, Result, Text};

/// The whole event as JSON: CloudEvents in structured mode.
#[derive(Debug)]
pub(super) struct Structured;

impl Format for Structured {
    fn name(&self) -> &'static str {
        "structured"
    }

    fn layout(&self, events: &Described<'_>) -> Option<Layout> {
        let content_type = events.codec.content_type();
        let data = match events.codec {
            Codec::Json => ("data", events.data.clone()),
            _ => (
                "data_base64",
                json!({ "type": "string", "contentEncoding": "base64", "contentMediaType": content_type }),
            ),
        };
        let value = object(
            [
                (
                    "specversion",
                    json!({ "type": "string", "const": Event::SPEC_VERSION }),
                ),
                ("id", text()),
                ("source", text()),
                ("type", events.type_schema()),
                data,
            ],
            [
                (
                    "datacontenttype",
                    json!({ "type": "string", "const": content_type }),
                ),
                ("time", time()),
                ("subject", text()),
                ("dataversion", text()),
                ("correlationid", text()),
                ("causationid", text()),
            ],
        );
        let header = json!({ "type": "string", "const": envelope::CONTENT_TYPE });
        let headers = object([("content-type", header)], []);
        let mut layout = Layout::json(value).with_headers(headers);
        layout.content_type = Text::new_static(envelope::CONTENT_TYPE);
        Some(layout)
    }

    fn write(&self, event: &Event) -> Result<RawRecord> {
        let mut value = Vec::new();
        envelope::write_event(event, &mut value);
        let content_type = Bytes::from_static(envelope::CONTENT_TYPE.as_bytes());
        let header = (Text::new_static("content-type"), Some(content_type));
        let key = event
            .key()
            .map(|key| Bytes::copy_from_slice(key.as_bytes()));
        let headers = Headers::from_iter([header]);
        Ok(RawRecord::new(key, headers, Some(value.into())))
    }

    fn read(&self, record: &RawRecord, _: &Place<'_>) -> Result<Event> {
        let value = record.value.as_ref();
        envelope::read_event(value.ok_or_else(|| unreadable(self.name(), "it has no value"))?)
    }
}
