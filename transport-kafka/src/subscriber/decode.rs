//! Records of Kafka as deliveries.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use polybus_core::envelope::headers::{self, Message as Envelope};
use polybus_core::envelope::json;
use polybus_core::transport::{AckToken, Delivery, Headers, Position, RawRecord};
use polybus_core::{Error, ErrorKind, Event, Result, Topic};
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers as _};

use crate::error::Origin;

/// Stands in place of a header whose name the client can't read.
const UNREADABLE: &str = "(a name that is not UTF-8)";

/// A record as a delivery: an event in binary or structured mode, or the bytes that are none.
pub(crate) fn delivery(
    message: &BorrowedMessage<'_>,
    topic: &Topic,
    token: AckToken,
    origin: &Origin,
) -> Delivery {
    let position = Position::new(
        message.partition().unsigned_abs(),
        message.offset().unsigned_abs(),
    );
    let value = message.payload().map(Bytes::copy_from_slice);
    match event(message, value.clone()) {
        Ok((event, headers)) => {
            Delivery::new(token, topic.clone(), position, event).with_headers(headers)
        }
        Err(error) => {
            let error = error_of(&error, topic, position, origin).with_source(error);
            let record = RawRecord::new(
                message.key().map(Bytes::copy_from_slice),
                all_headers(message),
                value,
            );
            Delivery::undecodable(token, topic.clone(), position, record, error)
        }
    }
}

fn error_of(error: &Error, topic: &Topic, position: Position, origin: &Origin) -> Error {
    origin
        .error("recv", ErrorKind::Decode, error.message())
        .with_topic(topic.name())
        .with_note(format!("record {position}"))
}

fn event(message: &BorrowedMessage<'_>, value: Option<Bytes>) -> Result<(Event, Headers)> {
    let key = message.key().map(std::str::from_utf8).transpose();
    let key = key.map_err(|error| undecodable("the key is not UTF-8").with_source(error))?;
    // The client panics over a header whose name is not UTF-8, which brokers let through: that
    // must not take the whole subscriber down.
    let read = catch_unwind(AssertUnwindSafe(|| {
        let headers = message.headers().into_iter().flat_map(|all| all.iter());
        headers::read(headers.map(|h| (h.key, h.value)), key, value.clone())
    }));
    match read.map_err(|_| undecodable("the name of a header is not UTF-8"))?? {
        Envelope::Event(event, headers) => Ok((event, headers)),
        Envelope::Structured(content_type, headers) => {
            let media_type = content_type.split(';').next().unwrap_or_default().trim();
            if !media_type.eq_ignore_ascii_case(json::CONTENT_TYPE) {
                return Err(undecodable(format!(
                    "events in `{content_type}` are not read, only in `{}`",
                    json::CONTENT_TYPE
                )));
            }
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

fn all_headers(message: &BorrowedMessage<'_>) -> Headers {
    let Some(all) = message.headers() else {
        return Headers::new();
    };
    let headers = (0..all.count()).map(|index| {
        let header = catch_unwind(AssertUnwindSafe(|| all.try_get(index)));
        match header {
            Ok(Some(header)) => (header.key.into(), header.value.map(Bytes::copy_from_slice)),
            Ok(None) | Err(_) => (UNREADABLE.into(), None),
        }
    });
    headers.collect()
}

fn undecodable(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Decode, why)
}
