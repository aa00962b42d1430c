//! Events and raw records as records of Kafka.

use bytes::Bytes;
use polybus_core::envelope::headers::{self, KeyPlace};
use polybus_core::transport::{Content, Headers, Outgoing};
use rdkafka::message::{Header, OwnedHeaders};

use super::producer::Record;
use crate::writing::Format;

/// The record for an event, in binary mode, or a raw record as it is; with the headers of the
/// hop behind its own. A plain event has no headers at all.
pub(super) fn record(outgoing: &Outgoing, format: Format, number: usize) -> Record<'_> {
    let record = Record::with_opaque_to(outgoing.topic.name(), number);
    let (key, value, headers) = match &outgoing.content {
        Content::Event(event) if format == Format::Plain => {
            return with_content(record, event.key().map(str::as_bytes), event.data());
        }
        Content::Event(event) => {
            // Four attributes are always there; most events have four more.
            let mut written = Some(OwnedHeaders::new_with_capacity(8 + outgoing.headers.len()));
            headers::write(event, KeyPlace::Record, |name, value| {
                written = written.take().map(|headers| {
                    headers.insert(Header {
                        key: name,
                        value: Some(value),
                    })
                });
            });
            let headers = written.unwrap_or_default();
            (event.key().map(str::as_bytes), event.data(), headers)
        }
        Content::Raw(raw) => {
            let capacity = raw.headers.len() + outgoing.headers.len();
            let headers = OwnedHeaders::new_with_capacity(capacity.max(1));
            let headers = append(headers, &raw.headers);
            (raw.key.as_deref(), raw.value.as_ref(), headers)
        }
    };
    with_content(record, key, value).headers(append(headers, &outgoing.headers))
}

/// No value at all is a tombstone; an empty one is not.
fn with_content<'a>(
    record: Record<'a>,
    key: Option<&'a [u8]>,
    value: Option<&'a Bytes>,
) -> Record<'a> {
    let record = match key {
        Some(key) => record.key(key),
        None => record,
    };
    match value {
        Some(value) => record.payload(value.as_ref()),
        None => record,
    }
}

fn append(headers: OwnedHeaders, more: &Headers) -> OwnedHeaders {
    more.iter().fold(headers, |headers, (name, value)| {
        headers.insert(Header {
            key: name,
            value: value.map(AsRef::<[u8]>::as_ref),
        })
    })
}
