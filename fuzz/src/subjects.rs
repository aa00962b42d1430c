//! One function for each way that bytes of strangers come in. None may panic, take memory beyond what
//! its input justifies, or change what it was given; what it refuses is a typed error.
//!
//! The bytes are taken apart by [`Parts`], so that a fuzzer reaches beyond the first check.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use polybus::codec::{self, DataSchema, Frame, SchemaFormat};
use polybus::envelope::headers::{self, KeyPlace, Message};
use polybus::envelope::json;
use polybus::format::{Formats, Place};
use polybus::routing::RouteTable;
use polybus::transport::{Position, RawRecord};
use polybus::{Codec, Config, ErrorKind, Event, EventData, Headers, Pattern, Topic};
use serde::{Deserialize, Serialize};

/// Names that mean something, beside those that the input makes up.
const NAMES: [&str; 14] = [
    "ce_specversion",
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_time",
    "ce_subject",
    "ce_dataschema",
    "ce_datacontenttype",
    "ce_partitionkey",
    "ce_dataversion",
    "ce_correlationid",
    "content-type",
    "CE_ID",
    "ce_data",
];

/// Bytes, taken apart.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// Up to 255 bytes.
    fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (piece, rest) = self.0.split_at(length);
        self.0 = rest;
        piece
    }

    fn name(&mut self) -> String {
        match NAMES.get(usize::from(self.byte()) % (NAMES.len() + 4)) {
            Some(name) => (*name).to_owned(),
            None => String::from_utf8_lossy(self.piece()).into_owned(),
        }
    }

    /// A value, or a null one.
    fn value(&mut self) -> Option<&'a [u8]> {
        match self.byte() {
            0 => None,
            1 => Some(b"1.0"),
            2 => Some(b"a.b"),
            3 => Some(b"2026-11-21T10:00:00Z"),
            _ => Some(self.piece()),
        }
    }
}

/// The error of bytes that are refused.
fn check_refused<T>(result: polybus::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Decode, "{error:?}");
            assert!(!error.retryable() && !error.message().is_empty());
            None
        }
    }
}

/// An event in binary mode, in the headers of a record.
pub fn kafka_headers(data: &[u8]) {
    let mut parts = Parts(data);
    let count = parts.byte() % 32;
    let headers: Vec<_> = (0..count).map(|_| (parts.name(), parts.value())).collect();
    let key = std::str::from_utf8(parts.piece()).ok();
    let value = parts.value().map(Bytes::copy_from_slice);
    let borrowed = headers.iter().map(|(name, value)| (name.as_str(), *value));
    let Some(message) = check_refused(headers::read(borrowed, key, value.clone())) else {
        return;
    };
    if let Message::Event(event, others) = message {
        assert!(others.len() <= headers.len());
        assert_eq!(event.data(), value.as_ref());
        let mut written = BTreeMap::new();
        headers::write(&event, KeyPlace::Header, |name, value| {
            written.insert(name.to_owned(), value.to_vec());
        });
        let again = written.iter();
        let again = again.map(|(name, value)| (name.as_str(), Some(&value[..])));
        let again = headers::read(again, None, value).expect("what we write is read");
        let Message::Event(again, _) = again else {
            panic!("an event became another")
        };
        assert_eq!((again.id(), again.source()), (event.id(), event.source()));
    }
}

/// An event in the two fields of an entry: the attributes as JSON, and the data.
pub fn redis_fields(data: &[u8]) {
    let mut parts = Parts(data);
    let value = parts.value().map(Bytes::copy_from_slice);
    let event = check_refused(json::read_attributes(parts.0, value.clone()));
    if let Some(event) = event {
        assert_eq!(event.data(), value.as_ref());
        let mut written = Vec::new();
        json::write_attributes(&event, &mut written);
        let again = json::read_attributes(&written, value).expect("what we write is read");
        assert_eq!(again, event);
    }
}

/// A whole event as JSON.
pub fn structured_json(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    if let Some(event) = check_refused(json::read_event(&data)) {
        let mut written = Vec::new();
        json::write_event(&event, &mut written);
        let again = json::read_event(&written.into()).expect("what we write is read");
        assert_eq!(
            (again.id(), again.event_type()),
            (event.id(), event.event_type())
        );
    }
}

/// A record of an existing system, in every shape that is known.
pub fn formats(data: &[u8]) {
    static FORMATS: LazyLock<Formats> = LazyLock::new(Formats::default);
    let mut parts = Parts(data);
    let mut headers = Headers::new();
    for _ in 0..parts.byte() % 4 {
        headers.push(parts.name(), parts.value().map(Bytes::copy_from_slice));
    }
    let key = parts.value().map(Bytes::copy_from_slice);
    let value = (parts.byte() != 0).then(|| Bytes::copy_from_slice(parts.0));
    let record = RawRecord::new(key, headers, value);
    let kept = record.clone();
    let topic = Topic::new("topic");
    let place = Place::new(&topic, Position::new(0, 1)).with_event_type(Some("a.b"));
    for name in FORMATS.names() {
        let format = FORMATS.find(name).expect("it was named");
        if let Some(event) = check_refused(format.read(&record, &place)) {
            assert!(!event.id().is_empty());
            if let Err(error) = format.write(&event) {
                assert_eq!(error.kind(), ErrorKind::Encode, "{error:?}");
            }
        }
        assert_eq!(record, kept);
    }
}

/// A config file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let known = |kind| {
        matches!(
            kind,
            ErrorKind::Config | ErrorKind::InvalidPattern | ErrorKind::MissingFeature
        )
    };
    match Config::parse_with(text, "polybus.toml", [("NAME", "value")]) {
        Ok(config) => {
            if let Err(error) = RouteTable::compile(&config) {
                assert!(known(error.kind()), "{error:?}");
            }
        }
        Err(error) => assert!(known(error.kind()), "{error:?}"),
    }
}

/// A pattern, and an event type that it may match.
pub fn pattern(data: &[u8]) {
    let mut parts = Parts(data);
    let texts = [parts.piece(), parts.piece(), parts.0];
    let [pattern, other, name] = texts.map(String::from_utf8_lossy);
    let parsed = [&pattern, &other].map(|text| Pattern::parse(text.as_ref()));
    for parsed in &parsed {
        if let Err(error) = parsed {
            assert_eq!(error.kind(), ErrorKind::InvalidPattern, "{error:?}");
        }
    }
    if let [Ok(pattern), Ok(other)] = parsed {
        let both = pattern.matches(&name) && other.matches(&name);
        assert!(
            !both || pattern.intersects(&other),
            "`{pattern}` `{other}` `{name}`"
        );
        assert_eq!(pattern.intersects(&other), other.intersects(&pattern));
    }
}

/// Any shape that data may have, nested as deep as it likes.
#[derive(Debug, Serialize, Deserialize, polybus::Event)]
#[event(type = "a.b", avro = "node.avsc")]
pub struct Node {
    name: String,
    next: Option<Box<Node>>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize, polybus::Event)]
#[event(type = "a.c", protobuf)]
pub struct Tree {
    #[prost(message, repeated, tag = "1")]
    pub branches: Vec<Tree>,
    #[prost(int64, repeated, tag = "2")]
    pub leaves: Vec<i64>,
    #[prost(map = "string, bytes", tag = "3")]
    pub names: std::collections::HashMap<String, Vec<u8>>,
}

/// Schemas that a registry may name for hostile data.
const SCHEMAS: [&str; 8] = [
    include_str!("node.avsc"),
    r#"{"type":"array","items":"null"}"#,
    r#"{"type":"map","values":{"type":"array","items":"bytes"}}"#,
    r#"["null","string",{"type":"fixed","name":"F","size":3},{"type":"enum","name":"E","symbols":["A"]}]"#,
    r#"{"type":"record","name":"A","fields":[{"name":"a","type":"A"}]}"#,
    r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#,
    r#"{"type":"string","logicalType":"uuid"}"#,
    "{",
];

/// The data of an event, in any codec.
pub fn codecs(data: &[u8]) {
    static KNOWN: LazyLock<[DataSchema; 8]> =
        LazyLock::new(|| SCHEMAS.map(|text| DataSchema::new(SchemaFormat::Avro, text)));
    let mut parts = Parts(data);
    let codec = Codec::ALL[usize::from(parts.byte()) % Codec::ALL.len()];
    let schema = usize::from(parts.byte());
    let kept = Bytes::copy_from_slice(parts.0);
    let event = |event_type: &str, data: Bytes| -> Event {
        let event = Event::builder(event_type).source("s");
        let event = event.content_type(codec.content_type()).data(data);
        event.build().expect("it has what an event needs")
    };
    let (node, tree) = (event("a.b", kept.clone()), event("a.c", kept.clone()));
    check_refused(Node::from_event(&node));
    check_refused(Tree::from_event(&tree));
    check_refused(Codec::decode::<serde_json::Value>(&node));
    assert_eq!(node.data(), Some(&kept));
    // The same as if a registry knew what the frame names, rightly or not.
    let framed = event("a.b", Frame::write(7, None, &kept));
    codec::written_with(KNOWN.get(schema % 8), || {
        check_refused(Node::from_event(&framed));
        check_refused(Codec::decode::<serde_json::Value>(&framed));
    });
}

/// Confluent's wire format.
pub fn frame(data: &[u8]) {
    let Some(frame) = Frame::parse(data) else {
        return;
    };
    assert_eq!(Frame::write(frame.schema, None, frame.body), data);
    if let Some((indexes, body)) = frame.message_indexes() {
        let written = Frame::write(frame.schema, Some(&indexes), body);
        let again = Frame::parse(&written).expect("what we write is read");
        assert_eq!(again.message_indexes(), Some((indexes, body)));
    }
    let text = String::from_utf8_lossy(data);
    let schema = DataSchema::of_message(text.as_ref(), "A.B");
    assert!(!schema.message().is_empty());
}
