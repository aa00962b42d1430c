use std::fmt::Write as _;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::layout::{object, text, time};
use super::shape::{Str, build, data_of, json_data, parse, record, written_time};
use super::{Described, Format, Layout, Place};
use crate::event::extensions;
use crate::transport::{Headers, RawRecord};
use crate::{Event, Result};

/// `{ header: { id, type, origin, originPrefix, timestamp, hash, version }, body }`.
///
/// `hash` is the SHA-256 of the body's bytes in hexadecimal digits, and the extension `hash` of what is
/// read. `origin` is the source, `originPrefix` the extension `origin`. What is wrapped once more, as
/// `{ pattern, data }`, is read as well. Subject and other extensions are not written.
#[derive(Debug)]
pub(super) struct HeaderBody;

#[derive(Serialize, Deserialize)]
struct Shape<'a> {
    #[serde(borrow)]
    header: Header<'a>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header<'a> {
    #[serde(borrow)]
    id: Str<'a>,
    #[serde(borrow, rename = "type")]
    event_type: Str<'a>,
    #[serde(borrow)]
    origin: Str<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    origin_prefix: Option<Str<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(borrow, default)]
    version: Option<Str<'a>>,
}

/// How some frameworks wrap it.
#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The version of data that does not say one.
const VERSION: &str = "1.0.0";

impl Format for HeaderBody {
    fn name(&self) -> &'static str {
        "header_body"
    }

    fn needs_json(&self) -> bool {
        true
    }

    fn layout(&self, events: &Described<'_>) -> Option<Layout> {
        let header = object(
            [
                ("id", text()),
                ("type", events.type_schema()),
                ("origin", text()),
                ("hash", text()),
                ("version", text()),
            ],
            [("originPrefix", text()), ("timestamp", time())],
        );
        Some(Layout::json(object(
            [("header", header), ("body", events.data.clone())],
            [],
        )))
    }

    fn write(&self, event: &Event) -> Result<RawRecord> {
        let body = json_data(self.name(), event)?;
        let origin_prefix = event.extension(extensions::ORIGIN);
        let origin_prefix = origin_prefix.map(|origin| origin.to_string());
        let header = Header {
            id: event.id().into(),
            event_type: event.event_type().into(),
            origin: event.source().into(),
            origin_prefix: origin_prefix.as_deref().map(Str::from),
            timestamp: written_time(event),
            hash: Some(hash(body.map_or("null", RawValue::get))),
            version: Some(event.data_version().unwrap_or(VERSION).into()),
        };
        record(event, Headers::new(), &Shape { header, body })
    }

    fn read(&self, record: &RawRecord, _: &Place<'_>) -> Result<Event> {
        let inner = unwrapped(record);
        let record = inner.as_ref().unwrap_or(record);
        let Shape { header, body } = parse(self.name(), record)?;
        let mut builder = Event::builder(header.event_type.0)
            .id(header.id.0.as_ref())
            .source(header.origin.0);
        if let Some(version) = header.version {
            builder = builder.data_version(version.0);
        }
        if let Some(prefix) = header.origin_prefix {
            builder = builder.extension(extensions::ORIGIN, prefix.0.as_ref());
        }
        if let Some(hash) = header.hash {
            builder = builder.extension("hash", hash);
        }
        let data = data_of(record, body);
        build(
            self.name(),
            builder,
            record,
            header.timestamp.as_deref(),
            data,
        )
    }
}

/// The record within `{ pattern, data }`.
fn unwrapped(record: &RawRecord) -> Option<RawRecord> {
    let value = record.value.as_ref()?;
    let wrapped: Wrapped<'_> = serde_json::from_slice(value).ok()?;
    let inner: Bytes = value.slice_ref(wrapped.data.get().as_bytes());
    Some(RawRecord::new(
        record.key.clone(),
        record.headers.clone(),
        Some(inner),
    ))
}

fn hash(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing into memory does not fail");
        text
    })
}
