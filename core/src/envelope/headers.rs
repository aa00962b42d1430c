//! CloudEvents attributes as headers or fields with a prefix: binary mode.
//!
//! Every attribute and extension that is set has a header `ce_<name>`, `datacontenttype` has
//! `content-type`; the data stands by itself
//! ([Kafka binding](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md)).
//! Values are UTF-8 text: an integer or boolean extension comes back as a string.

use bytes::Bytes;

use crate::event::{self, extensions};
use crate::text::format_text;
use crate::time::{parse_timestamp, write_timestamp};
use crate::transport::Headers;
use crate::{Error, ErrorKind, Event, ExtensionValue, Result, Text, Timestamp};

/// What the name of an attribute's header starts with. Read without regard to case.
pub const PREFIX: &str = "ce_";

/// The header of `datacontenttype`. Read without regard to case.
pub const CONTENT_TYPE: &str = "content-type";

/// What the content type of an event as a whole starts with.
const STRUCTURED: &str = "application/cloudevents";

/// Where the event's [key](Event::key) stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPlace {
    /// In the record's own key, where the transport puts it. The header `ce_partitionkey` is
    /// written only where the key alone would not tell: if `partitionkey` equals `subject`.
    Record,
    /// In the header `ce_partitionkey`, because records have no key.
    Header,
}

/// What the headers of a record say that it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// An event in binary mode, and the headers beside its attributes.
    Event(Event, Headers),
    /// The value is a whole event in structured mode; its content type, and the other headers.
    Structured(Text, Headers),
}

/// Calls `header` with name and value of each attribute that is set, `datacontenttype` included.
pub fn write(event: &Event, key: KeyPlace, mut header: impl FnMut(&str, &[u8])) {
    let mut optional = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            header(name, value.as_bytes());
        }
    };
    optional("ce_specversion", Some(Event::SPEC_VERSION));
    optional("ce_id", Some(event.id()));
    optional("ce_source", Some(event.source()));
    optional("ce_type", Some(event.event_type()));
    optional("ce_subject", event.subject());
    optional("ce_dataschema", event.schema());
    optional(CONTENT_TYPE, event.content_type());
    if let Some(time) = event.time() {
        write_timestamp(time, |time| optional("ce_time", Some(time)));
    }
    let in_record = key == KeyPlace::Record && event.partition_key() != event.subject();
    for (name, value) in event.extensions() {
        match (name, &value) {
            (extensions::PARTITION_KEY, _) if in_record => {}
            (_, ExtensionValue::String(value)) => optional(&header_name(name), Some(value)),
            (_, value) => optional(&header_name(name), Some(&format_text!("{value}"))),
        }
    }
}

/// Reads the headers of a record, with its key (if records have one) and its value.
///
/// Of two headers with one name the first counts; headers that are no attribute of the event,
/// those with a null value among them, are kept beside it. The key becomes `partitionkey`
/// unless the headers say it or it is the `subject`.
///
/// # Errors
///
/// [`ErrorKind::Decode`] if there are no attributes, a required one is missing or empty, or one
/// is malformed.
pub fn read<'a>(
    headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    key: Option<&str>,
    data: Option<Bytes>,
) -> Result<Message> {
    let mut attributes = Attributes::default();
    let mut others = Headers::new();
    for (name, value) in headers {
        let taken = match value {
            Some(value) => attributes.take(name, value)?,
            None => false,
        };
        if !taken {
            others.push(name, value.map(Bytes::copy_from_slice));
        }
    }
    if let Some(content_type) = attributes.content_type.filter(|text| is_structured(text)) {
        return Ok(Message::Structured(content_type.into(), others));
    }
    Ok(Message::Event(attributes.into_event(key, data)?, others))
}

/// Whether a header may say something of an event. A record without such a header is none.
pub fn is_attribute(name: &[u8]) -> bool {
    let starts = name.get(..PREFIX.len());
    starts.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX.as_bytes()))
        || name.eq_ignore_ascii_case(CONTENT_TYPE.as_bytes())
}

/// Whether a content type is that of an event as a whole.
fn is_structured(content_type: &str) -> bool {
    let start = content_type.trim_start().as_bytes();
    start
        .get(..STRUCTURED.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(STRUCTURED.as_bytes()))
}

fn header_name(extension: &str) -> Text {
    match extension {
        extensions::PARTITION_KEY => Text::new_static("ce_partitionkey"),
        extensions::DATA_VERSION => Text::new_static("ce_dataversion"),
        extensions::CORRELATION_ID => Text::new_static("ce_correlationid"),
        extensions::CAUSATION_ID => Text::new_static("ce_causationid"),
        extensions::TRACE_PARENT => Text::new_static("ce_traceparent"),
        extensions::TRACE_STATE => Text::new_static("ce_tracestate"),
        name => format_text!("{PREFIX}{name}"),
    }
}

/// The attributes found so far, borrowed from the record.
#[derive(Default)]
struct Attributes<'a> {
    found: bool,
    spec_version: Option<&'a str>,
    id: Option<&'a str>,
    source: Option<&'a str>,
    event_type: Option<&'a str>,
    subject: Option<&'a str>,
    schema: Option<&'a str>,
    time: Option<&'a str>,
    content_type: Option<&'a str>,
    partition_key: Option<&'a str>,
    data_version: Option<&'a str>,
    extensions: Vec<(Text, ExtensionValue)>,
}

impl<'a> Attributes<'a> {
    /// Whether the header is an attribute that was not there before.
    fn take(&mut self, header: &str, value: &'a [u8]) -> Result<bool> {
        let extension = strip_prefix(header);
        self.found |= extension.is_some();
        // Mostly it is spelled as we write it.
        if let Some(place) = self.place(header) {
            return set(place, header, value);
        }
        if !header.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return extension.map_or(Ok(false), |name| self.take_extension(name, header, value));
        }
        let lower = header.to_ascii_lowercase();
        match (self.place(&lower), strip_prefix(&lower)) {
            (Some(place), _) => set(place, header, value),
            (None, Some(name)) => self.take_extension(name, header, value),
            (None, None) => Ok(false),
        }
    }

    /// Where the value of a header goes, by its name in lower case.
    fn place(&mut self, header: &str) -> Option<&mut Option<&'a str>> {
        match header {
            "ce_specversion" => Some(&mut self.spec_version),
            "ce_id" => Some(&mut self.id),
            "ce_source" => Some(&mut self.source),
            "ce_type" => Some(&mut self.event_type),
            "ce_subject" => Some(&mut self.subject),
            "ce_dataschema" => Some(&mut self.schema),
            "ce_time" => Some(&mut self.time),
            "ce_partitionkey" => Some(&mut self.partition_key),
            "ce_dataversion" => Some(&mut self.data_version),
            "ce_datacontenttype" | CONTENT_TYPE => Some(&mut self.content_type),
            _ => None,
        }
    }

    fn take_extension(&mut self, name: &str, header: &str, value: &'a [u8]) -> Result<bool> {
        let spelled = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let known = self.extensions.iter().any(|(known, _)| known == name);
        if name.is_empty() || name == "data" || !spelled || known {
            return Ok(false);
        }
        self.extensions
            .push((name.into(), text(header, value)?.into()));
        Ok(true)
    }

    fn into_event(self, key: Option<&str>, data: Option<Bytes>) -> Result<Event> {
        if !self.found {
            return Err(undecodable("no header is an attribute of a CloudEvent")
                .with_note("CloudEvents in binary mode have headers `ce_id`, `ce_type`, ..."));
        }
        let version = required("specversion", self.spec_version)?;
        if version != Event::SPEC_VERSION {
            return Err(undecodable(format!(
                "CloudEvents of version `{version}` are not read, only of 1.0"
            )));
        }
        let key = key.filter(|key| self.subject != Some(key));
        let attributes = event::Attributes {
            event_type: required("type", self.event_type)?.into(),
            source: required("source", self.source)?.into(),
            subject: self.subject.map(Text::from),
            time: self.time.map(parse_time).transpose()?,
            content_type: self.content_type.map(Text::from),
            schema: self.schema.map(Text::from),
            partition_key: self.partition_key.or(key).map(Text::from),
            data_version: self.data_version.map(Text::from),
            extensions: self.extensions,
        };
        let id = required("id", self.id)?.into();
        Ok(Event::received(id, attributes, data))
    }
}

fn strip_prefix(header: &str) -> Option<&str> {
    let start = header.as_bytes().get(..PREFIX.len())?;
    start
        .eq_ignore_ascii_case(PREFIX.as_bytes())
        .then(|| &header[PREFIX.len()..])
}

fn set<'a>(place: &mut Option<&'a str>, header: &str, value: &'a [u8]) -> Result<bool> {
    if place.is_some() {
        return Ok(false);
    }
    *place = Some(text(header, value)?);
    Ok(true)
}

fn text<'a>(header: &str, value: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(value)
        .map_err(|error| undecodable(format!("header `{header}` is not UTF-8")).with_source(error))
}

fn required<'a>(name: &str, value: Option<&'a str>) -> Result<&'a str> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| {
        undecodable(format!(
            "header `{PREFIX}{name}`, which every event has, is missing or empty"
        ))
    })
}

fn parse_time(time: &str) -> Result<Timestamp> {
    parse_timestamp(time).map_err(|error| {
        undecodable(format!("header `ce_time` is no time stamp: `{time}`")).with_source(error)
    })
}

fn undecodable(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Decode, why)
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
