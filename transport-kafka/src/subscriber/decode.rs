//! Records of Kafka as deliveries.

use bytes::Bytes;
use polybus_core::envelope::headers::{self, Message as Envelope};
use polybus_core::envelope::json;
use polybus_core::transport::{Delivery, Headers, Position, RawRecord};
use polybus_core::{Error, ErrorKind, Event, Result, Topic};

use super::packed::Packed;
use crate::error::Origin;

/// A record as a delivery: an event in binary or structured mode, or the bytes that are none.
pub(crate) fn delivery(record: &Packed, topic: Topic, origin: &Origin) -> Delivery {
    let position = Position::new(record.partition.unsigned_abs(), record.token.id[0]);
    if !record
        .headers()
        .any(|(name, _)| headers::is_attribute(name))
    {
        return foreign(record, topic, position, origin);
    }
    match event(record) {
        Ok((event, headers)) => {
            Delivery::new(record.token, topic, position, event).with_headers(headers)
        }
        Err(error) => {
            let error = error_of(&error, &topic, position, origin).with_source(error);
            Delivery::undecodable(record.token, topic, position, raw(record), error)
        }
    }
}

/// A record that does not say it is an event. The format of its topic mostly reads it: so nothing is
/// done here for an error that nobody would see.
fn foreign(record: &Packed, topic: Topic, position: Position, origin: &Origin) -> Delivery {
    let (kept, of, origin) = (record.clone(), topic.clone(), origin.clone());
    let why = move || {
        let why = event(&kept).err();
        let why = why.unwrap_or_else(|| undecodable("no header is an attribute of an event"));
        error_of(&why, &of, position, &origin).with_source(why)
    };
    Delivery::unread(record.token, topic, position, raw(record), why)
}

fn raw(record: &Packed) -> RawRecord {
    RawRecord::new(
        record.key().map(Bytes::copy_from_slice),
        all_headers(record),
        record.value(),
    )
}

fn error_of(error: &Error, topic: &Topic, position: Position, origin: &Origin) -> Error {
    origin
        .error("recv", ErrorKind::Decode, error.message())
        .with_topic(topic.name())
        .with_note(format!("record {position}"))
}

fn event(record: &Packed) -> Result<(Event, Headers)> {
    if !record.has_headers {
        return Err(undecodable("the headers can't be read"));
    }
    let key = record.key().map(std::str::from_utf8).transpose();
    let key = key.map_err(|error| undecodable("the key is not UTF-8").with_source(error))?;
    let mut unreadable = false;
    let headers = record
        .headers()
        .map_while(|(name, value)| match std::str::from_utf8(name) {
            Ok(name) => Some((name, value)),
            Err(_) => {
                unreadable = true;
                None
            }
        });
    let read = headers::read(headers, key, record.value());
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
            let value = record.value();
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
fn all_headers(record: &Packed) -> Headers {
    let headers = record.headers().map(|(name, value)| {
        let name = String::from_utf8_lossy(name);
        (name.as_ref().into(), value.map(Bytes::copy_from_slice))
    });
    headers.collect()
}

fn undecodable(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Decode, why)
}
