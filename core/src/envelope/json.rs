//! CloudEvents attributes as JSON, and whole events in the CloudEvents JSON format
//! (structured mode).
//!
//! Reading is strict: `specversion` must be `1.0`, the required attributes must be there and
//! not empty, every attribute must have its type, and no member may stand twice. A member that
//! CloudEvents does not define is an extension. `null` is the same as not there.

mod plain;

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::codec::is_json;
use crate::time::{parse_timestamp, write_timestamp};
use crate::{Error, ErrorKind, Event, ExtensionValue, Result, Text, Timestamp};

/// The media type of a whole event in JSON: structured mode.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// How many extension attributes an event may have when it is read. Far more than anybody
/// needs, and few enough that hostile input costs little.
pub const MAX_EXTENSIONS: usize = 128;

/// Appends the context attributes and extensions of an event as one JSON object, without its
/// data. Attributes that are not set are left out.
pub fn write_attributes(event: &Event, out: &mut Vec<u8>) {
    push_attributes(event, out);
    out.push(b'}');
}

/// Appends a whole event in the CloudEvents JSON format.
///
/// Data of a JSON content type, or without one, stands in `data` as it is; data of a text or
/// XML content type stands there as a string; everything else, and what is not what its content
/// type says, stands in `data_base64`.
pub fn write_event(event: &Event, out: &mut Vec<u8>) {
    push_attributes(event, out);
    if let Some(data) = event.data() {
        push_data(event.content_type(), data, out);
    }
    out.push(b'}');
}

/// Reads what [`write_attributes`] wrote; the data travels beside it.
///
/// # Errors
///
/// [`ErrorKind::Decode`], naming the attribute, for anything that is not the attributes of a
/// CloudEvents 1.0 event. `data` and `data_base64` are refused: they have no place here.
pub fn read_attributes(json: &[u8], data: Option<Bytes>) -> Result<Event> {
    let members = match plain::parse(json) {
        Some(members) => members,
        None => parse(json)?,
    };
    if members.data.is_some() || members.data_base64.is_some() {
        return Err(decode_error(
            "the attributes hold a member `data` or `data_base64`, which belongs beside them",
        ));
    }
    members.into_event(data)
}

/// Reads a whole event in the CloudEvents JSON format. Data that stands there as JSON shares
/// its bytes with `json`.
///
/// # Errors
///
/// [`ErrorKind::Decode`], naming the attribute, for anything that is not a CloudEvents 1.0 event.
pub fn read_event(json: &Bytes) -> Result<Event> {
    let members: Members<'_> = parse(json)?;
    let data = members.data(json)?;
    members.into_event(data)
}

fn parse(json: &[u8]) -> Result<Members<'_>> {
    serde_json::from_slice(json).map_err(|error| {
        decode_error(format!("the JSON of the event can't be read: {error}")).with_source(error)
    })
}

fn decode_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Decode, message)
}

fn push_attributes(event: &Event, out: &mut Vec<u8>) {
    // What a usual event takes, so that the buffer grows once.
    out.reserve(event.size() - event.data().map_or(0, Bytes::len) + 160);
    out.extend_from_slice(br#"{"specversion":"1.0","id":"#);
    push_string(event.id(), out);
    push_member("source", event.source(), out);
    push_member("type", event.event_type(), out);
    if let Some(subject) = event.subject() {
        push_member("subject", subject, out);
    }
    if let Some(time) = event.time() {
        write_timestamp(time, |time| push_member("time", time, out));
    }
    if let Some(content_type) = event.content_type() {
        push_member("datacontenttype", content_type, out);
    }
    if let Some(schema) = event.schema() {
        push_member("dataschema", schema, out);
    }
    for (name, value) in event.extensions() {
        match value {
            ExtensionValue::String(text) => push_member(name, &text, out),
            ExtensionValue::Boolean(_) | ExtensionValue::Integer(_) => {
                write!(out, r#","{name}":{value}"#).expect("writing into memory does not fail");
            }
        }
    }
}

/// `name` is an attribute's name and needs no escaping.
fn push_member(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    push_string(value, out);
}

fn push_string(text: &str, out: &mut Vec<u8>) {
    // Without a way out of the loop, so that it takes many bytes at once. Hardly any attribute has
    // something to escape.
    let is_plain = |plain, byte| plain & (byte >= b' ') & (byte != b'"') & (byte != b'\\');
    if text.bytes().fold(true, is_plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("writing a string into memory does not fail");
    }
}

fn push_data(content_type: Option<&str>, data: &[u8], out: &mut Vec<u8>) {
    if content_type.is_none_or(is_json) {
        if let Ok(json) = serde_json::from_slice::<&RawValue>(data) {
            out.extend_from_slice(br#","data":"#);
            out.extend_from_slice(json.get().as_bytes());
            return;
        }
    } else if content_type.is_some_and(is_text)
        && let Ok(text) = std::str::from_utf8(data)
    {
        push_member("data", text, out);
        return;
    }
    out.extend_from_slice(br#","data_base64":""#);
    let start = out.len();
    let length = base64::encoded_len(data.len(), true).expect("the data is in memory already");
    out.resize(start + length, 0);
    BASE64
        .encode_slice(data, &mut out[start..])
        .expect("the room is as long as the encoded data");
    out.push(b'"');
}

/// `text/*` and XML, parameters aside.
fn is_text(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let media_type = media_type.to_ascii_lowercase();
    media_type.starts_with("text/") || media_type.ends_with("/xml") || media_type.ends_with("+xml")
}

/// The members of the object, checked each by itself.
#[derive(Default)]
struct Members<'a> {
    specversion: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    event_type: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    time: Option<Timestamp>,
    content_type: Option<Cow<'a, str>>,
    schema: Option<Cow<'a, str>>,
    extensions: Vec<(Text, ExtensionValue)>,
    data: Option<&'a RawValue>,
    data_base64: Option<Cow<'a, str>>,
}

impl<'a> Members<'a> {
    /// Takes a member in. The error is the message.
    fn set(&mut self, name: &str, value: Value<'a>) -> Result<(), String> {
        let slot = match name {
            "specversion" => &mut self.specversion,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.event_type,
            "subject" => &mut self.subject,
            "datacontenttype" => &mut self.content_type,
            "dataschema" => &mut self.schema,
            "data_base64" => &mut self.data_base64,
            "time" => {
                let Some(text) = value.into_text(name)? else {
                    return Ok(());
                };
                return set_once(&mut self.time, name, read_time(&text)?);
            }
            _ => return self.set_extension(name, value),
        };
        match value.into_text(name)? {
            Some(text) => set_once(slot, name, text),
            None => Ok(()),
        }
    }

    fn set_extension(&mut self, name: &str, value: Value<'a>) -> Result<(), String> {
        let value = match value {
            Value::Null => return Ok(()),
            Value::Text(text) => ExtensionValue::String(text.into()),
            Value::Boolean(value) => ExtensionValue::Boolean(value),
            Value::Integer(value) => ExtensionValue::Integer(value),
            Value::Other(what) => {
                return Err(format!(
                    "attribute `{name}` is {what}, and not a string, a boolean or a 32 bit integer"
                ));
            }
        };
        if self.extensions.iter().any(|(known, _)| known == name) {
            return Err(twice(name));
        }
        if self.extensions.len() == MAX_EXTENSIONS {
            return Err(format!(
                "attribute `{name}` is one too many: an event may have {MAX_EXTENSIONS} extensions"
            ));
        }
        self.extensions.push((name.into(), value));
        Ok(())
    }

    /// The data of structured mode.
    fn data(&self, json: &Bytes) -> Result<Option<Bytes>> {
        match (self.data, &self.data_base64) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(decode_error(
                "the event has `data` and `data_base64`, and may have one of them",
            )),
            (None, Some(text)) => match BASE64.decode(text.as_bytes()) {
                Ok(data) => Ok(Some(data.into())),
                Err(error) => Err(
                    decode_error(format!("`data_base64` is not base64: {error}"))
                        .with_source(error),
                ),
            },
            (Some(raw), None) => {
                let raw = raw.get();
                let as_json = self.content_type.as_deref().is_none_or(is_json);
                if as_json || !raw.starts_with('"') {
                    return Ok(Some(json.slice_ref(raw.as_bytes())));
                }
                let text: String = serde_json::from_str(raw).map_err(|error| {
                    decode_error(format!("`data` is not a string: {error}")).with_source(error)
                })?;
                Ok(Some(text.into()))
            }
        }
    }

    fn into_event(self, data: Option<Bytes>) -> Result<Event> {
        let specversion = required("specversion", self.specversion)?;
        if specversion != Event::SPEC_VERSION {
            return Err(decode_error(format!(
                "attribute `specversion` is `{specversion}`, and only `{}` is known",
                Event::SPEC_VERSION
            )));
        }
        let mut builder = Event::builder(required("type", self.event_type)?)
            .id(required("id", self.id)?.as_ref())
            .source(required("source", self.source)?);
        builder = match self.time {
            Some(time) => builder.time(time),
            None => builder.without_time(),
        };
        if let Some(subject) = self.subject {
            builder = builder.subject(subject);
        }
        if let Some(content_type) = self.content_type {
            builder = builder.content_type(content_type);
        }
        if let Some(schema) = self.schema {
            builder = builder.schema(schema);
        }
        for (name, value) in self.extensions {
            builder = builder.extension(name, value);
        }
        if let Some(data) = data {
            builder = builder.data(data);
        }
        builder
            .build()
            .map_err(|error| decode_error(error.message()).with_source(error))
    }
}

fn required<'a>(name: &str, value: Option<Cow<'a, str>>) -> Result<Cow<'a, str>> {
    match value {
        Some(value) if !value.is_empty() => Ok(value),
        Some(_) => Err(decode_error(format!("attribute `{name}` is empty"))),
        None => Err(decode_error(format!("attribute `{name}` is missing"))),
    }
}

fn set_once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(twice(name)),
    }
}

fn twice(name: &str) -> String {
    format!("member `{name}` stands there twice")
}

/// RFC 3339 with any offset. The library reads more than that, so the shape is checked first.
fn read_time(text: &str) -> Result<Timestamp, String> {
    let bytes = text.as_bytes();
    let offset = matches!(
        bytes,
        [.., b'Z' | b'z'] | [.., b'+' | b'-', _, _, b':', _, _]
    );
    let separator = matches!(bytes.get(10), Some(b'T' | b't'));
    if offset
        && separator
        && let Ok(time) = parse_timestamp(text)
    {
        return Ok(time);
    }
    Err("attribute `time` is not a time as RFC 3339 has it".to_owned())
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the attributes of an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::default();
        while let Some(Name(name)) = map.next_key()? {
            if name == "data" {
                set_once(&mut members.data, "data", map.next_value()?).map_err(A::Error::custom)?;
            } else {
                let value = map.next_value()?;
                members.set(&name, value).map_err(A::Error::custom)?;
            }
        }
        Ok(members)
    }
}

/// A member's name, borrowed where it holds no escape.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(ValueVisitor)? {
            Value::Text(name) => Ok(Self(name)),
            _ => Err(D::Error::custom("a member's name is a string")),
        }
    }
}

/// A member's value, as far as an attribute can have it.
enum Value<'a> {
    Null,
    Text(Cow<'a, str>),
    Boolean(bool),
    Integer(i32),
    /// What no attribute can be, in words.
    Other(&'static str),
}

impl<'a> Value<'a> {
    fn into_text(self, name: &str) -> Result<Option<Cow<'a, str>>, String> {
        let what = match self {
            Self::Null => return Ok(None),
            Self::Text(text) => return Ok(Some(text)),
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) => "a number",
            Self::Other(what) => what,
        };
        Err(format!("attribute `{name}` is {what}, and not a string"))
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value of an attribute")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(i32::try_from(value).map_or(Value::Other(OUT_OF_RANGE), Value::Integer))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(i32::try_from(value).map_or(Value::Other(OUT_OF_RANGE), Value::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::Other("a number that is no 32 bit integer"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other("an object"))
    }
}

const OUT_OF_RANGE: &str = "a number out of the range of a 32 bit integer";

#[cfg(test)]
mod tests;
