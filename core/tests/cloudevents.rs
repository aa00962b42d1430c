//! What we write is read by the SDK of the CloudEvents project, and what it writes by us.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use cloudevents::event::SpecVersion;
use cloudevents::message::{
    BinaryDeserializer, BinarySerializer, MessageAttributeValue, Result as MessageResult,
};
use cloudevents::{AttributesReader, Data, EventBuilder, EventBuilderV10};
use polybus_core::envelope::headers::{self, KeyPlace, Message};
use polybus_core::envelope::json;
use polybus_core::event::extensions;
use polybus_core::{Event, ExtensionValue};

/// Every attribute and every kind of extension; the place of an aggregate too.
fn ours(content_type: &str, data: &[u8]) -> Event {
    let builder = Event::builder("order.placed")
        .id("e1")
        .source("https://shop.example/orders")
        .subject("order-7")
        .time("2026-11-21T10:00:00.123Z".parse().unwrap())
        .schema("https://shop.example/order.json")
        .content_type(content_type)
        .key("k1")
        .data_version("1.2.0")
        .correlation("c1")
        .causation("e0")
        .extension(extensions::AGGREGATE_TYPE, "Order")
        .extension(extensions::AGGREGATE_VERSION, ExtensionValue::Integer(3))
        .extension("urgent", ExtensionValue::Boolean(true));
    builder.data(data.to_vec()).build().unwrap()
}

/// 2026-11-21T10:00:00.123Z in milliseconds.
const TIME: i64 = 1_795_255_200_123;

const DATA: [(&str, &[u8]); 3] = [
    ("application/json", br#"{"cents":995}"#),
    ("text/plain", b"hello"),
    ("application/avro", b"\xc3\x01\0\xff"),
];

/// What the SDK says of an event that is [`ours`].
#[track_caller]
fn check_theirs(theirs: &cloudevents::Event, ours: &Event, typed: bool) {
    assert_eq!(theirs.specversion(), SpecVersion::V10);
    assert_eq!(theirs.id(), ours.id());
    assert_eq!(theirs.ty(), ours.event_type());
    assert_eq!(theirs.source(), ours.source());
    assert_eq!(theirs.subject(), ours.subject());
    let time = theirs.time().unwrap();
    assert_eq!(time.timestamp_millis(), TIME);
    assert_eq!(ours.time().unwrap().as_millisecond(), TIME);
    assert_eq!(theirs.datacontenttype(), ours.content_type());
    assert_eq!(
        theirs.dataschema().map(ToString::to_string).as_deref(),
        ours.schema()
    );
    let mut found: Vec<_> = theirs
        .iter_extensions()
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect();
    let mut expected: Vec<_> = ours
        .extensions()
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    if typed {
        assert!(matches!(
            theirs.extension("urgent"),
            Some(cloudevents::event::ExtensionValue::Boolean(true))
        ));
        assert!(matches!(
            theirs.extension("aggregateversion"),
            Some(cloudevents::event::ExtensionValue::Integer(3))
        ));
    }
    let data: Vec<u8> = match theirs.data().unwrap() {
        Data::Binary(data) => data.clone(),
        Data::String(text) => text.clone().into_bytes(),
        Data::Json(value) => value.to_string().into_bytes(),
    };
    assert_eq!(data[..], ours.data().unwrap()[..]);
}

#[test]
fn our_structured_json_is_read_by_the_sdk() {
    for (content_type, data) in DATA {
        let event = ours(content_type, data);
        let mut written = Vec::new();
        json::write_event(&event, &mut written);
        let theirs = serde_json::from_slice(&written).unwrap();
        check_theirs(&theirs, &event, true);
    }
}

#[test]
fn the_sdks_structured_json_is_read_by_us() {
    for (content_type, data) in DATA {
        let event = ours(content_type, data);
        let mut written = Vec::new();
        json::write_event(&event, &mut written);
        let theirs: cloudevents::Event = serde_json::from_slice(&written).unwrap();
        let written = Bytes::from(serde_json::to_vec(&theirs).unwrap());
        let read = json::read_event(&written).unwrap();
        check_theirs(&theirs, &read, true);
        assert_eq!(read.id(), event.id());
    }
}

#[test]
fn what_the_sdk_builds_is_read_by_us() {
    let theirs = EventBuilderV10::new()
        .id("e9")
        .ty("user.created")
        .source("https://users.example")
        .data("application/json", serde_json::json!({ "id": 7 }))
        .extension("tenant", "t1")
        .build()
        .unwrap();
    let written = Bytes::from(serde_json::to_vec(&theirs).unwrap());
    let read = json::read_event(&written).unwrap();
    assert_eq!((read.id(), read.event_type()), ("e9", "user.created"));
    assert_eq!(read.extension("tenant"), Some("t1".into()));
    assert_eq!(read.data().unwrap()[..], *br#"{"id":7}"#);
}

/// The headers of a record, as the Kafka binding has them.
#[derive(Default)]
struct Record {
    headers: Vec<(String, Vec<u8>)>,
    data: Option<Vec<u8>>,
}

impl Record {
    fn with(mut self, name: &str, value: &impl ToString) -> Self {
        let name = match name {
            "datacontenttype" => "content-type".to_owned(),
            name => format!("ce_{name}"),
        };
        self.headers.push((name, value.to_string().into_bytes()));
        self
    }
}

impl BinarySerializer<Record> for Record {
    fn set_spec_version(self, version: SpecVersion) -> MessageResult<Self> {
        Ok(self.with("specversion", &version))
    }

    fn set_attribute(self, name: &str, value: MessageAttributeValue) -> MessageResult<Self> {
        Ok(self.with(name, &value))
    }

    fn set_extension(self, name: &str, value: MessageAttributeValue) -> MessageResult<Self> {
        Ok(self.with(name, &value))
    }

    fn end_with_data(mut self, data: Vec<u8>) -> MessageResult<Record> {
        self.data = Some(data);
        Ok(self)
    }

    fn end(self) -> MessageResult<Record> {
        Ok(self)
    }
}

impl BinaryDeserializer for Record {
    fn deserialize_binary<R: Sized, V: BinarySerializer<R>>(
        self,
        mut visitor: V,
    ) -> MessageResult<R> {
        const ATTRIBUTES: [&str; 6] = ["id", "type", "source", "subject", "time", "dataschema"];
        visitor = visitor.set_spec_version(SpecVersion::V10)?;
        for (name, value) in self.headers {
            let value = MessageAttributeValue::String(String::from_utf8(value).unwrap());
            visitor = match name.strip_prefix("ce_") {
                Some("specversion") => visitor,
                Some(name) if ATTRIBUTES.contains(&name) => visitor.set_attribute(name, value)?,
                Some(name) => visitor.set_extension(name, value)?,
                None => visitor.set_attribute("datacontenttype", value)?,
            };
        }
        match self.data {
            Some(data) => visitor.end_with_data(data),
            None => visitor.end(),
        }
    }
}

#[test]
fn our_headers_are_read_by_the_sdk() {
    for (content_type, data) in DATA {
        let event = ours(content_type, data);
        let mut record = Record {
            data: Some(data.to_vec()),
            ..Record::default()
        };
        headers::write(&event, KeyPlace::Header, |name, value| {
            record.headers.push((name.to_owned(), value.to_vec()));
        });
        let theirs = BinaryDeserializer::into_event(record).unwrap();
        check_theirs(&theirs, &event, false);
    }
}

#[test]
fn the_sdks_headers_are_read_by_us() {
    for (content_type, data) in DATA {
        let mut written = Vec::new();
        json::write_event(&ours(content_type, data), &mut written);
        let theirs: cloudevents::Event = serde_json::from_slice(&written).unwrap();
        let record = theirs
            .clone()
            .deserialize_binary(Record::default())
            .unwrap();
        let headers = record.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str(), Some(&value[..])));
        let data = record.data.clone().map(Bytes::from);
        let Message::Event(read, others) = headers::read(headers, None, data).unwrap() else {
            panic!("the headers say that the value is the event");
        };
        assert!(others.is_empty());
        check_theirs(&theirs, &read, false);
    }
}
