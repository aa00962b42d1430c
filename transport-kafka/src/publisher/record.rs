//! Events and raw records as records of Kafka.

use polybus_core::envelope::headers::{self, KeyPlace};
use polybus_core::transport::{Content, Headers, Outgoing};
use rdkafka::message::{Header, OwnedHeaders};

use super::producer::Record;

/// The record for an event, in binary mode, or a raw record as it is; with the headers of the
/// hop behind its own.
pub(super) fn record(outgoing: &Outgoing, number: usize) -> Record<'_> {
    let record = Record::with_opaque_to(outgoing.topic.name(), number);
    let (key, value, headers) = match &outgoing.content {
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
    let record = match key {
        Some(key) => record.key(key),
        None => record,
    };
    // No value at all is a tombstone; an empty one is not.
    let record = match value {
        Some(value) => record.payload(value.as_ref()),
        None => record,
    };
    record.headers(append(headers, &outgoing.headers))
}

fn append(headers: OwnedHeaders, more: &Headers) -> OwnedHeaders {
    more.iter().fold(headers, |headers, (name, value)| {
        headers.insert(Header {
            key: name,
            value: value.map(AsRef::<[u8]>::as_ref),
        })
    })
}
