//! How an event stands in an entry of a stream.

use std::borrow::Cow;

use bytes::Bytes;
use polybus_core::envelope::{headers, json};
use polybus_core::transport::{Content, Header, Headers, Outgoing, RawRecord};
use polybus_core::{Error, ErrorKind, Event, Result};

use crate::client::Cmd;
use crate::packed::{Arguments, Packed};
use crate::writing::{Format, Writing};

/// The context attributes and extensions, as one JSON object.
const ATTRIBUTES: &str = "ce";

/// The data as it is, or the value of a raw record. Absent when there is none.
const DATA: &str = "data";

/// What the field of a header beside the event's attributes starts with.
const HEADER: &str = "h:";

/// What the field of a header without a value starts with. Redis has no null.
const NULL_HEADER: &str = "n:";

/// The key of a raw record that came from a transport that has keys, or of an event written plainly.
const KEY: &str = "k:";

/// The command that appends what is to be published. `scratch` is memory to write in.
pub(crate) fn append(outgoing: &Outgoing, writing: &Writing, scratch: &mut Vec<u8>) -> Cmd {
    let fields = 2 * (2 + outgoing.headers.len());
    let mut command = Cmd::with_capacity(6 + fields, outgoing.size() + 256);
    append_to(outgoing, writing, scratch, &mut command);
    command
}

/// The same, as it goes to the server, at the end of a buffer.
pub(crate) fn pack(
    outgoing: &Outgoing,
    writing: &Writing,
    scratch: &mut Vec<u8>,
    buffer: &mut Vec<u8>,
) {
    let mut command = Packed::begin(buffer);
    append_to(outgoing, writing, scratch, &mut command);
    command.end();
}

fn append_to(
    outgoing: &Outgoing,
    writing: &Writing,
    scratch: &mut Vec<u8>,
    command: &mut impl Arguments,
) {
    command.push(b"XADD");
    command.push(outgoing.topic.name().as_bytes());
    writing.append_trim(command);
    command.push(b"*");
    append_fields(outgoing, writing.format, scratch, command);
}

/// The names and values of the fields of what is to be stored.
pub(crate) fn append_fields(
    outgoing: &Outgoing,
    format: Format,
    scratch: &mut Vec<u8>,
    command: &mut impl Arguments,
) {
    match &outgoing.content {
        Content::Event(event) if format == Format::Plain => append_plain(event, command),
        Content::Event(event) => {
            if format == Format::Fields && !reads_as_structured(event) {
                append_attributes(event, command);
            } else {
                append_json(event, scratch, command);
            }
            if let Some(data) = event.data() {
                append_field(command, DATA, Some(data));
            }
            for (name, value) in outgoing.headers.iter() {
                let prefix = value.map_or(NULL_HEADER, |_| HEADER);
                append_field(command, &[prefix, name].concat(), value);
            }
        }
        Content::Raw(record) => append_record(record, &outgoing.headers, command),
    }
}

fn append_json(event: &Event, scratch: &mut Vec<u8>, command: &mut impl Arguments) {
    scratch.clear();
    json::write_attributes(event, scratch);
    command.push(ATTRIBUTES.as_bytes());
    command.push(scratch);
}

fn append_attributes(event: &Event, command: &mut impl Arguments) {
    headers::write(event, headers::KeyPlace::Header, |name, value| {
        command.push(name.as_bytes());
        command.push(value);
    });
}

/// Whether the field `content-type` would say that the data is the event itself.
fn reads_as_structured(event: &Event) -> bool {
    const STRUCTURED: &str = "application/cloudevents";
    let content_type = event.content_type().unwrap_or_default().trim_start();
    let start = content_type.get(..STRUCTURED.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(STRUCTURED))
}

/// The data and the key, as of a record that is no event.
fn append_plain(event: &Event, command: &mut impl Arguments) {
    let key = event
        .key()
        .map(|key| Bytes::copy_from_slice(key.as_bytes()));
    let record = RawRecord::new(key, Headers::new(), event.data().cloned());
    append_record(&record, &Headers::new(), command);
}

/// A record as it is: its headers are fields under their own names.
fn append_record(record: &RawRecord, further: &Headers, command: &mut impl Arguments) {
    for (name, value) in record.headers.iter().chain(further.iter()) {
        match value {
            Some(_) => append_field(command, name, value),
            None => append_field(command, &[NULL_HEADER, name].concat(), None),
        }
    }
    if let Some(key) = &record.key {
        append_field(command, KEY, Some(key));
    }
    if let Some(value) = &record.value {
        append_field(command, DATA, Some(value));
    } else if record.headers.is_empty() && further.is_empty() && record.key.is_none() {
        // An entry has at least one field.
        append_field(command, &[NULL_HEADER, DATA].concat(), None);
    }
}

fn append_field(command: &mut impl Arguments, name: &str, value: Option<&Bytes>) {
    command.push(name.as_bytes());
    command.push(value.map_or(&[][..], |value| &value[..]));
}

/// What an entry holds.
pub(crate) struct Read {
    /// The event, or the record and why it is none.
    pub(crate) content: Result<Event, (RawRecord, Error)>,
    /// What stands beside the event's attributes.
    pub(crate) headers: Headers,
    /// The size of all fields in bytes.
    pub(crate) size: usize,
}

/// Reads the fields of an entry, whatever of the formats they have.
pub(crate) fn read<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Read {
    let entry = Fields::split(fields);
    let size = entry.size;
    let (content, headers) = match entry.event() {
        Ok((event, headers)) => (Ok(event), headers),
        Err(error) => (Err((entry.into_record(), error)), Headers::new()),
    };
    Read {
        content,
        headers,
        size,
    }
}

/// The fields of an entry.
///
/// What becomes part of the event is copied: it must not hold on to all that came with it.
#[derive(Default)]
struct Fields<'a> {
    attributes: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
    others: Vec<(&'a [u8], &'a [u8])>,
    size: usize,
}

impl<'a> Fields<'a> {
    fn split(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut entry = Self::default();
        for (name, value) in fields {
            entry.size += name.len() + value.len();
            let slot = match name {
                name if name == DATA.as_bytes() => Some(&mut entry.data),
                name if name == ATTRIBUTES.as_bytes() => Some(&mut entry.attributes),
                name if name == KEY.as_bytes() => Some(&mut entry.key),
                _ => None,
            };
            match slot {
                Some(slot) if slot.is_none() => *slot = Some(value),
                _ => entry.others.push((name, value)),
            }
        }
        entry
    }

    /// The event, and what stands beside it.
    fn event(&self) -> Result<(Event, Headers)> {
        if let Some(attributes) = &self.attributes {
            let event = json::read_attributes(attributes, self.data())?;
            return Ok((event, self.headers()));
        }
        // A name that is no text is no attribute's. It is shown, if not exactly.
        let names = self
            .others
            .iter()
            .map(|(name, _)| String::from_utf8_lossy(name));
        let names: Vec<Cow<'_, str>> = names.collect();
        if !names.iter().any(|name| is_binary(name)) {
            return Ok((self.structured()?, self.headers()));
        }
        let values = self.others.iter().map(|(_, value)| Some(*value));
        let key = self.key.and_then(|key| std::str::from_utf8(key).ok());
        let fields = names.iter().map(AsRef::as_ref).zip(values);
        let (event, others) = match headers::read(fields, key, self.data())? {
            headers::Message::Event(event, others) => (event, others),
            headers::Message::Structured(_, others) => (self.structured()?, others),
        };
        let others = others.into_iter().map(|(name, value)| header(&name, value));
        Ok((event, others.collect()))
    }

    /// The field `data` as a whole event.
    fn structured(&self) -> Result<Event> {
        match &self.data() {
            Some(data) => json::read_event(data),
            None => Err(Error::new(
                ErrorKind::Decode,
                "the entry has no field `ce`, no field `ce_id` and no field `data`",
            )),
        }
    }

    fn data(&self) -> Option<Bytes> {
        self.data.map(bytes)
    }

    fn headers(&self) -> Headers {
        let header = |(name, value): &(&[u8], &[u8])| {
            header(&String::from_utf8_lossy(name), Some(bytes(value)))
        };
        self.others.iter().map(header).collect()
    }

    /// The entry as a record that [`append_record`] writes again as it was.
    fn into_record(self) -> RawRecord {
        let mut record = RawRecord::default();
        if let Some(attributes) = self.attributes {
            record.headers.push(ATTRIBUTES, Some(bytes(attributes)));
        }
        for (name, value) in self.others {
            let name = String::from_utf8_lossy(name);
            match name.strip_prefix(NULL_HEADER) {
                Some(DATA) => {}
                Some(name) => record.headers.push(name, None),
                None => record.headers.push(name, Some(bytes(value))),
            }
        }
        record.key = self.key.map(bytes);
        record.value = self.data.map(bytes);
        record
    }
}

/// Whether a field's name is one of an event in binary mode.
fn is_binary(name: &str) -> bool {
    let prefix = name.get(..headers::PREFIX.len());
    prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(headers::PREFIX))
        || name.eq_ignore_ascii_case(headers::CONTENT_TYPE)
}

/// The header that a field beside the event stands for.
fn header(name: &str, value: Option<Bytes>) -> Header {
    if let Some(name) = name.strip_prefix(HEADER) {
        (name.into(), value)
    } else if let Some(name) = name.strip_prefix(NULL_HEADER) {
        (name.into(), None)
    } else {
        (name.into(), value)
    }
}

fn bytes(value: &[u8]) -> Bytes {
    Bytes::copy_from_slice(value)
}

#[cfg(test)]
mod tests;
