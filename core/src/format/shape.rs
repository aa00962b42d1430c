//! What the JSON shapes have in common.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::codec::is_json;
use crate::event::extensions;
use crate::transport::{Headers, RawRecord};
use crate::{Codec, Error, ErrorKind, Event, EventBuilder, ExtensionValue, Result, Timestamp};

/// Metadata beside the known members of a shape.
pub(super) type Metadata = BTreeMap<String, serde_json::Value>;

/// How shapes spell what CloudEvents writes in lower case.
const SPELLED: [(&str, &str); 3] = [
    (extensions::CORRELATION_ID, "correlationId"),
    (extensions::CAUSATION_ID, "causationId"),
    ("userid", "userId"),
];

/// The value of a record as JSON of a shape.
pub(super) fn parse<'a, T: Deserialize<'a>>(format: &str, record: &'a RawRecord) -> Result<T> {
    let value = record
        .value
        .as_ref()
        .ok_or_else(|| unreadable(format, "the record has no value"))?;
    serde_json::from_slice(value)
        .map_err(|error| unreadable(format, &error.to_string()).with_source(error))
}

pub(super) fn unreadable(format: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::Decode,
        format!("the record is not an event of format `{format}`: {why}"),
    )
}

/// A record with the JSON of a shape, under the event's key.
pub(super) fn record<T: Serialize>(
    event: &Event,
    headers: Headers,
    shape: &T,
) -> Result<RawRecord> {
    let value = Codec::Json.encode(shape)?;
    let key = event
        .key()
        .map(|key| Bytes::copy_from_slice(key.as_bytes()));
    Ok(RawRecord::new(key, headers, Some(value)))
}

/// The data of an event as the JSON it has to be. No data is `null`.
pub(super) fn json_data<'a>(format: &str, event: &'a Event) -> Result<Option<&'a RawValue>> {
    let Some(data) = event.data() else {
        return Ok(None);
    };
    let refused = |why: String| {
        Error::new(
            ErrorKind::Encode,
            format!("format `{format}` holds data as JSON alone, and {why}"),
        )
        .with_note(format!(
            "event of type `{}`, id `{}`",
            event.event_type(),
            event.id()
        ))
    };
    if let Some(content_type) = event.content_type()
        && !is_json(content_type)
    {
        return Err(refused(format!("the data is `{content_type}`")));
    }
    let json = serde_json::from_slice(data);
    json.map(Some)
        .map_err(|error| refused(format!("the data is none: {error}")).with_source(error))
}

/// The part of a record's value that holds the data. `null` is no data.
pub(super) fn data_of(record: &RawRecord, data: Option<&RawValue>) -> Option<Bytes> {
    let data = data.map(RawValue::get).filter(|data| *data != "null")?;
    Some(record.value.as_ref()?.slice_ref(data.as_bytes()))
}

/// Finishes an event: time, data, and the record's key.
pub(super) fn build(
    format: &str,
    builder: EventBuilder,
    record: &RawRecord,
    time: Option<&str>,
    data: Option<Bytes>,
) -> Result<Event> {
    let mut builder = match time {
        Some(time) => builder.time(self::time(format, time)?),
        None => builder.without_time(),
    };
    if let Some(data) = data {
        builder = builder.content_type(Codec::Json.content_type()).data(data);
    }
    if let Some(key) = &record.key {
        builder = builder.key(text(format, "key", key)?);
    }
    let built = builder.build();
    built.map_err(|error| unreadable(format, error.message()).with_source(error))
}

pub(super) fn text<'a>(format: &str, what: &str, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes)
        .map_err(|error| unreadable(format, &format!("the {what} is not UTF-8")).with_source(error))
}

fn time(format: &str, text: &str) -> Result<Timestamp> {
    text.parse().map_err(|error: jiff::Error| {
        unreadable(format, &format!("`{text}` is no time stamp")).with_source(error)
    })
}

/// The extensions of an event as metadata, but for its key and those that stand elsewhere.
pub(super) fn metadata(event: &Event, elsewhere: &[&str]) -> Metadata {
    let kept = event
        .extensions()
        .filter(|(name, _)| *name != extensions::PARTITION_KEY && !elsewhere.contains(name));
    kept.map(|(name, value)| {
        let spelled = SPELLED.iter().find(|(known, _)| *known == name);
        let name = spelled.map_or(name, |(_, spelled)| spelled);
        (name.to_owned(), json_value(&value))
    })
    .collect()
}

fn json_value(value: &ExtensionValue) -> serde_json::Value {
    match value {
        ExtensionValue::String(text) => text.as_str().into(),
        ExtensionValue::Boolean(value) => (*value).into(),
        ExtensionValue::Integer(value) => (*value).into(),
    }
}

/// Metadata as extensions. Names lose what CloudEvents does not allow in them; what is neither text,
/// boolean nor small number is kept as its JSON.
pub(super) fn with_metadata(builder: EventBuilder, metadata: Metadata) -> EventBuilder {
    metadata
        .into_iter()
        .fold(builder, |builder, (name, value)| {
            let name = extension_name(&name);
            let value: ExtensionValue = match value {
                serde_json::Value::Null => return builder,
                serde_json::Value::String(text) => text.into(),
                serde_json::Value::Bool(value) => ExtensionValue::Boolean(value),
                serde_json::Value::Number(number) => match number.as_i64().map(i32::try_from) {
                    Some(Ok(number)) => ExtensionValue::Integer(number),
                    _ => number.to_string().into(),
                },
                other => other.to_string().into(),
            };
            builder.extension(name, value)
        })
}

fn extension_name(name: &str) -> String {
    let kept = name.chars().filter(char::is_ascii_alphanumeric);
    let kept: String = kept.map(|letter| letter.to_ascii_lowercase()).collect();
    match kept.as_str() {
        "" | "data" | "id" | "source" | "specversion" | "type" | "subject" | "time"
        | "datacontenttype" | "dataschema" => format!("meta{kept}"),
        _ => kept,
    }
}

/// A member of metadata that has a place of its own, as text.
pub(super) fn take_text(metadata: &mut Metadata, name: &str) -> Option<String> {
    match metadata.remove(name)? {
        serde_json::Value::String(text) => Some(text),
        other => {
            metadata.insert(name.to_owned(), other);
            None
        }
    }
}

/// Text of a shape, borrowed where it holds no escape.
#[derive(Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct Str<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl<'a> From<&'a str> for Str<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

/// A time as shapes write it.
pub(super) fn written_time(event: &Event) -> Option<String> {
    event.time().map(|time| time.to_string())
}
