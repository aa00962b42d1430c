//! Records of Kafka as deliveries.

use bytes::{Bytes, BytesMut};
use polybus_core::envelope::headers::{self, Message as Envelope};
use polybus_core::envelope::json;
use polybus_core::transport::{AckToken, Delivery, Headers, Position, RawRecord};
use polybus_core::{Error, ErrorKind, Event, Result, Topic};

use super::queue::Record;
use crate::error::Origin;

/// Values up to here share an allocation with others. One that is kept keeps the whole of it, so
/// neither is large.
const SMALL_VALUE: usize = 1024;
const CHUNK: usize = 16 * 1024;

/// Copies small values into memory that they share: an allocation each, freed by another thread,
/// costs three times the copy.
#[derive(Default)]
pub(super) struct Values(BytesMut);

impl Values {
    fn copy(&mut self, value: &[u8]) -> Bytes {
        if value.len() > SMALL_VALUE {
            return Bytes::copy_from_slice(value);
        }
        if self.0.capacity() < value.len() {
            self.0 = BytesMut::with_capacity(CHUNK);
        }
        self.0.extend_from_slice(value);
        self.0.split().freeze()
    }
}

/// A record as a delivery: an event in binary or structured mode, or the bytes that are none.
pub(super) fn delivery(
    record: Record<'_>,
    topic: &Topic,
    token: AckToken,
    values: &mut Values,
    origin: &Origin,
) -> Delivery {
    let position = Position::new(
        record.partition().unsigned_abs(),
        record.offset().unsigned_abs(),
    );
    let value = record.value().map(|value| values.copy(value));
    match event(record, value) {
        Ok((event, headers)) => {
            Delivery::new(token, topic.clone(), position, event).with_headers(headers)
        }
        Err(error) => {
            let error = error_of(&error, topic, position, origin).with_source(error);
            let raw = RawRecord::new(
                record.key().map(Bytes::copy_from_slice),
                all_headers(record),
                record.value().map(Bytes::copy_from_slice),
            );
            Delivery::undecodable(token, topic.clone(), position, raw, error)
        }
    }
}

fn error_of(error: &Error, topic: &Topic, position: Position, origin: &Origin) -> Error {
    origin
        .error("recv", ErrorKind::Decode, error.message())
        .with_topic(topic.name())
        .with_note(format!("record {position}"))
}

fn event(record: Record<'_>, value: Option<Bytes>) -> Result<(Event, Headers)> {
    let key = record.key().map(std::str::from_utf8).transpose();
    let key = key.map_err(|error| undecodable("the key is not UTF-8").with_source(error))?;
    let all = record
        .headers()
        .map_err(|code| undecodable("the headers can't be read").with_source(code))?;
    let mut unreadable = false;
    let headers = all.map_while(|(name, value)| match name.to_str() {
        Ok(name) => Some((name, value)),
        Err(_) => {
            unreadable = true;
            None
        }
    });
    let read = headers::read(headers, key, value);
    if unreadable {
        return Err(undecodable("the name of a header is not UTF-8"));
    }
    match read? {
        Envelope::Event(event, headers) => Ok((event, headers)),
        Envelope::Structured(content_type, headers) => {
            let media_type = content_type.split(';').next().unwrap_or_default().trim();
            if !media_type.eq_ignore_ascii_case(json::CONTENT_TYPE) {
                return Err(undecodable(format!(
                    "events in `{content_type}` are not read, only in `{}`",
                    json::CONTENT_TYPE
                )));
            }
            let value = record.value().map(Bytes::copy_from_slice);
            let value = value.ok_or_else(|| undecodable("the record has no value"))?;
            Ok((with_key(json::read_event(&value)?, key)?, headers))
        }
    }
}

/// The key of a record in structured mode, which the event itself need not say.
fn with_key(event: Event, key: Option<&str>) -> Result<Event> {
    match key {
        Some(key) if event.key() != Some(key) && event.partition_key().is_none() => {
            event.to_builder().key(key).build()
        }
        _ => Ok(event),
    }
}

/// All headers, also where a name is not UTF-8: then with what can be read of it.
fn all_headers(record: Record<'_>) -> Headers {
    let headers = record.headers().into_iter().flatten();
    let headers = headers.map(|(name, value)| {
        let name = name.to_string_lossy();
        (name.as_ref().into(), value.map(Bytes::copy_from_slice))
    });
    headers.collect()
}

fn undecodable(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Decode, why)
}
