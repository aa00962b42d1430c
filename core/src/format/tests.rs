use bytes::Bytes;
use serde_json::{Value, json};

use super::{Described, FormatTable, Formats, Place};
use crate::config::Config;
use crate::event::extensions;
use crate::routing::RouteTable;
use crate::transport::{Headers, Position, RawRecord};
use crate::{Codec, ErrorKind, Event, ExtensionValue, Topic};

const ALL: [&str; 7] = [
    "structured",
    "plain",
    "flat",
    "entity",
    "domain",
    "metadata_payload",
    "header_body",
];

fn record(key: Option<&str>, value: impl Into<Bytes>) -> RawRecord {
    let key = key.map(|key| Bytes::copy_from_slice(key.as_bytes()));
    RawRecord::new(key, Headers::new(), Some(value.into()))
}

fn read(format: &str, record: &RawRecord) -> crate::Result<Event> {
    let topic = Topic::new("topic");
    let place = Place::new(&topic, Position::new(2, 7)).with_event_type(Some("policy.created"));
    Formats::default()
        .find(format)
        .expect("a format of ours")
        .read(record, &place)
}

fn write(format: &str, event: &Event) -> crate::Result<RawRecord> {
    Formats::default()
        .find(format)
        .expect("a format of ours")
        .write(event)
}

fn value_of(record: &RawRecord) -> Value {
    serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()
}

fn event() -> Event {
    Event::builder("policy.created")
        .id("e1")
        .source("policies")
        .subject("policy-123")
        .time("2026-11-21T10:00:00.5Z".parse().unwrap())
        .data_version("1.2.0")
        .correlation("c1")
        .causation("e0")
        .extension("userid", "user-789")
        .extension(extensions::AGGREGATE_TYPE, "Policy")
        .extension(extensions::AGGREGATE_VERSION, ExtensionValue::Integer(4))
        .json(&json!({ "policyNumber": "POL-12345" }))
        .unwrap()
        .build()
        .unwrap()
}

#[test]
fn what_documents_say_of_a_format_is_what_it_writes() {
    let data = json!({ "type": "object", "required": ["policyNumber"] });
    let formats = Formats::default();
    for name in ALL {
        let layout = |event_type| {
            let events = Described::new(Codec::Json).with_type(event_type);
            let format = formats.find(name).unwrap();
            format.layout(&events.with_data(data.clone())).unwrap()
        };
        let record = write(name, &event()).unwrap();
        let fits = |event_type| {
            let schema = layout(event_type).value?;
            Some(jsonschema::is_valid(&schema, &value_of(&record)))
        };
        let expected = (name != "plain").then_some(true);
        assert_eq!(fits("policy.created"), expected, "{name}");
        assert_eq!(fits("other"), expected.map(|_| false), "{name}");
        let headers: Value = record.headers.iter().map(text_of).collect();
        let described = layout("policy.created").headers;
        let described = described.unwrap_or_else(|| json!({ "additionalProperties": false }));
        assert!(jsonschema::is_valid(&described, &headers), "{name}");
    }
}

fn text_of<'a>((name, value): (&'a str, Option<&'a Bytes>)) -> (String, String) {
    let value = std::str::from_utf8(value.unwrap()).unwrap();
    (name.to_owned(), value.to_owned())
}

#[test]
fn the_flat_shape_is_read() {
    let sample = json!({
        "id": "4c6b", "timestamp": "2025-03-01T12:00:00.000Z", "type": "deal.status.changed",
        "source": "deal-monitor", "version": "1.0",
        "payload": { "deal_id": "deal-123", "old_status": "PENDING", "new_status": "ACTIVE" },
    });
    let event = read("flat", &record(Some("deal-123"), sample.to_string())).unwrap();
    assert_eq!(event.id(), "4c6b");
    assert_eq!(event.event_type(), "deal.status.changed");
    assert_eq!(event.source(), "deal-monitor");
    assert_eq!(event.data_version(), Some("1.0"));
    assert_eq!(event.key(), Some("deal-123"));
    assert_eq!(event.time().unwrap().to_string(), "2025-03-01T12:00:00Z");
    let data: Value = serde_json::from_slice(event.data().unwrap()).unwrap();
    assert_eq!(data, sample["payload"]);
}

#[test]
fn the_flat_shape_is_written() {
    let written = write("flat", &event()).unwrap();
    assert_eq!(
        value_of(&written),
        json!({
            "id": "e1", "timestamp": "2026-11-21T10:00:00.5Z", "type": "policy.created",
            "source": "policies", "version": "1.2.0", "payload": { "policyNumber": "POL-12345" },
        })
    );
    assert_eq!(written.key.as_deref(), Some(&b"policy-123"[..]));
    let keyless = Event::builder("a.b").id("e2").source("s").build().unwrap();
    let written = write("flat", &keyless).unwrap();
    assert_eq!(
        written.key.as_deref(),
        Some(&b"e2"[..]),
        "its id keys what has no key"
    );
}

#[test]
fn the_entity_shape_is_read_and_written() {
    let sample = json!({
        "id": "20251108-x", "type": "entity.created", "source": "customer-adapter",
        "subject": "customer:123", "timestamp": "2025-11-08T10:00:00.123456789+01:00",
        "data": { "customer_id": "123" }, "metadata": { "tenant": "t1" },
        "correlation_id": "c9", "causation_id": "e8",
    });
    let event = read("entity", &record(Some("20251108-x"), sample.to_string())).unwrap();
    assert_eq!(event.subject(), Some("customer:123"));
    assert_eq!(event.correlation_id(), Some("c9"));
    assert_eq!(event.causation_id(), Some("e8"));
    assert_eq!(event.extension("tenant"), Some("t1".into()));
    let written = write("entity", &event).unwrap();
    let mut expected = sample;
    expected["timestamp"] = json!("2025-11-08T09:00:00.123456789Z");
    assert_eq!(value_of(&written), expected);
    let header = |name| written.headers.first(name).map(|value| &value[..]);
    assert_eq!(header("event_type"), Some(&b"entity.created"[..]));
    assert_eq!(header("source"), Some(&b"customer-adapter"[..]));
}

#[test]
fn the_domain_shape_is_read_and_written() {
    let sample = json!({
        "id": "event-uuid", "type": "policy.created", "aggregateId": "policy-123",
        "aggregateType": "Policy", "version": 3,
        "data": { "premium": 1200 },
        "metadata": { "userId": "user-789", "correlationId": "c1", "request-Id": "r1", "retries": 2 },
        "timestamp": "2025-01-05T08:00:00.000Z",
    });
    let event = read("domain", &record(Some("policy-123"), sample.to_string())).unwrap();
    assert_eq!(event.subject(), Some("policy-123"));
    assert_eq!(
        event.source(),
        "topic",
        "without one the topic is the source"
    );
    assert_eq!(event.extension("aggregatetype"), Some("Policy".into()));
    assert_eq!(
        event.extension("aggregateversion"),
        Some(ExtensionValue::Integer(3))
    );
    assert_eq!(event.extension("userid"), Some("user-789".into()));
    assert_eq!(event.correlation_id(), Some("c1"));
    assert_eq!(event.extension("requestid"), Some("r1".into()));
    assert_eq!(event.extension("retries"), Some(ExtensionValue::Integer(2)));

    let written = value_of(&write("domain", &self::event()).unwrap());
    assert_eq!(
        written,
        json!({
            "id": "e1", "type": "policy.created", "aggregateId": "policy-123",
            "aggregateType": "Policy", "version": 4, "data": { "policyNumber": "POL-12345" },
            "metadata": { "source": "policies", "userId": "user-789", "correlationId": "c1",
                "causationId": "e0", "dataversion": "1.2.0" },
            "timestamp": "2026-11-21T10:00:00.5Z",
        })
    );
}

#[test]
fn a_domain_event_without_an_aggregate_says_what_it_lacks() {
    let bare = |key: Option<&str>| {
        let builder = Event::builder("policy.created").id("e").source("s");
        let builder = key.into_iter().fold(builder, crate::EventBuilder::key);
        builder.build().unwrap()
    };
    let error = write("domain", &bare(None)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode);
    assert!(
        error.to_string().contains("no subject and no key"),
        "{error}"
    );
    let written = value_of(&write("domain", &bare(Some("p7"))).unwrap());
    assert_eq!(written["aggregateId"], "p7");
    assert_eq!(written["aggregateType"], "Policy");
    assert_eq!(written["version"], 1);
}

#[test]
fn the_metadata_and_payload_shape_is_read_and_written() {
    let sample = json!({
        "metadata": { "eventId": "m1", "eventType": "content.created", "eventVersion": "1.0.0",
            "timestamp": "2025-06-01T00:00:00Z", "source": "cms-service",
            "correlationId": "req-123", "userId": "user-456" },
        "payload": { "contentId": "p1", "title": "A \"title\"" },
    });
    let event = read("metadata_payload", &record(None, sample.to_string())).unwrap();
    assert_eq!(event.id(), "m1");
    assert_eq!(event.event_type(), "content.created");
    assert_eq!(event.correlation_id(), Some("req-123"));
    assert_eq!(event.extension("userid"), Some("user-456".into()));
    assert_eq!(event.key(), None);
    assert_eq!(
        value_of(&write("metadata_payload", &event).unwrap()),
        sample
    );
}

#[test]
fn the_header_and_body_shape_is_read_and_written() {
    // The hash is of `{"userId":"123"}`.
    let hash = "a467259965e40229fe3a4efc35823ffd0a73fd3c314a45cb15fb756941b7fb23";
    let sample = json!({
        "header": { "id": "h1", "type": "user.created", "origin": "user-service",
            "originPrefix": "eu.de", "timestamp": "2025-02-02T02:02:02.000Z", "hash": hash,
            "version": "1.0.0" },
        "body": { "userId": "123" },
    });
    let wrapped = json!({ "pattern": "user.created", "data": sample });
    for value in [sample.to_string(), wrapped.to_string()] {
        let event = read("header_body", &record(None, value)).unwrap();
        assert_eq!(event.id(), "h1");
        assert_eq!(event.source(), "user-service");
        assert_eq!(event.extension("origin"), Some("eu.de".into()));
        assert_eq!(event.extension("hash"), Some(hash.into()));
        assert_eq!(
            event.data().unwrap(),
            &Bytes::from_static(br#"{"userId":"123"}"#)
        );
    }
    let written = value_of(&write("header_body", &event()).unwrap());
    assert_eq!(written["header"]["origin"], "policies");
    assert_eq!(written["header"].get("originPrefix"), None);
    assert_eq!(written["body"], json!({ "policyNumber": "POL-12345" }));
    // printf '%s' '{"policyNumber":"POL-12345"}' | sha256sum
    assert_eq!(
        written["header"]["hash"],
        "0958f4f635a78f4f2d6adf277c178e5185ae72819b08a618e68b6e6deb109c61"
    );
}

#[test]
fn what_is_written_is_read_back_in_every_format() {
    for format in ALL {
        let event = event();
        let back = read(format, &write(format, &event).unwrap()).unwrap();
        assert_eq!(back.event_type(), event.event_type(), "{format}");
        assert_eq!(back.data(), event.data(), "{format}");
        assert_eq!(back.key(), event.key(), "{format}");
        if format != "plain" {
            assert_eq!(back.id(), event.id(), "{format}");
            assert_eq!(back.source(), event.source(), "{format}");
            assert_eq!(back.time(), event.time(), "{format}");
        }
        if !["plain", "flat", "header_body"].contains(&format) {
            assert_eq!(back.correlation_id(), event.correlation_id(), "{format}");
            assert_eq!(back.causation_id(), event.causation_id(), "{format}");
            assert_eq!(
                back.extension("userid"),
                event.extension("userid"),
                "{format}"
            );
        }
    }
}

#[test]
fn a_plain_record_has_its_identity_from_where_it_stands() {
    for (value, content_type) in [(&b"{}"[..], Some("application/json")), (b"\xff\x00", None)] {
        let event = read("plain", &record(Some("k"), value)).unwrap();
        assert_eq!((event.id(), event.source()), ("2:7", "topic"));
        assert_eq!(event.event_type(), "policy.created");
        assert_eq!(event.content_type(), content_type);
        assert_eq!(event.data().unwrap(), value);
        assert_eq!(event.key(), Some("k"));
    }
}

#[test]
fn no_data_is_null_and_comes_back_as_none() {
    let bare = Event::builder("a.b")
        .id("e")
        .source("s")
        .key("k")
        .build()
        .unwrap();
    for format in ALL {
        let written = write(format, &bare).unwrap();
        let topic = Topic::new("t");
        let place = Place::new(&topic, Position::new(0, 0)).with_event_type(Some("a.b"));
        let formats = Formats::default();
        let back = formats
            .find(format)
            .unwrap()
            .read(&written, &place)
            .unwrap();
        assert_eq!(back.data(), None, "{format}");
    }
}

#[test]
fn data_that_is_no_json_is_refused_by_the_shapes_that_hold_json() {
    let binary = Event::builder("a.b")
        .source("s")
        .key("k")
        .content_type("image/png")
        .data(&b"\x89PNG"[..])
        .build()
        .unwrap();
    for format in [
        "flat",
        "entity",
        "domain",
        "metadata_payload",
        "header_body",
    ] {
        let error = write(format, &binary).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Encode, "{format}");
        assert!(error.to_string().contains("image/png"), "{error}");
    }
    for format in ["structured", "plain"] {
        let back = read(format, &write(format, &binary).unwrap()).unwrap();
        assert_eq!(back.data(), binary.data(), "{format}");
    }
}

#[test]
fn what_is_no_event_of_a_shape_is_an_error_that_says_which() {
    let deep = "[".repeat(100_000);
    for format in ALL.into_iter().filter(|format| *format != "plain") {
        for value in [
            "",
            "{",
            "[]",
            "7",
            "null",
            r#"{"id":7}"#,
            r#"{"header":{}}"#,
            &deep,
            "\u{0}",
        ] {
            let error = read(format, &record(None, value.to_owned())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Decode, "{format}: {value:.20}");
        }
        let error = read(format, &RawRecord::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode, "{format}");
    }
    let bad_time = r#"{"id":"1","type":"a","source":"s","timestamp":"yesterday","payload":1}"#;
    let error = read("flat", &record(None, bad_time)).unwrap_err();
    assert!(
        error.to_string().contains("`yesterday` is no time stamp"),
        "{error}"
    );
    let error = read("plain", &record(None, "x").with_key(b"\xff")).unwrap_err();
    assert!(error.to_string().contains("key is not UTF-8"), "{error}");
}

impl RawRecord {
    fn with_key(mut self, key: &'static [u8]) -> Self {
        self.key = Some(Bytes::from_static(key));
        self
    }
}

fn table(routes: &str) -> crate::Result<FormatTable> {
    let text = format!(
        "service.name = 's'\n[transports.t]\nkind = 'memory'\n[transports.u]\nkind = 'memory'\n{routes}"
    );
    let config = Config::parse(&text, "polybus.toml")?;
    let routes = RouteTable::compile(&config)?;
    FormatTable::of_transport(&config, &routes, "t", &Formats::default())
}

#[test]
fn a_topic_has_the_format_of_its_route() {
    let table = table(
        "[[routes]]\npattern = 'a.*'\ntransport = 't'\ntopic = 'flat'\nformat = 'flat'\n\
         [[routes]]\npattern = 'b.+'\ntransport = 't'\ntopic = 'b-{2}'\nformat = 'domain'\n\
         [[routes]]\npattern = 'c'\ntransport = 't'\ntopic = 'own'\n\
         [[routes]]\npattern = 'd'\ntransport = 'u'\ntopic = 'elsewhere'\nformat = 'flat'\n",
    )
    .unwrap();
    let found = |topic: &str| {
        let chosen = table.find(&Topic::new(topic.to_owned()));
        chosen.map(|chosen| chosen.format.name().to_owned())
    };
    assert_eq!(found("flat").as_deref(), Some("flat"));
    assert_eq!(found("b-created").as_deref(), Some("domain"));
    assert_eq!(found("own"), None);
    assert_eq!(found("elsewhere"), None);
    assert_eq!(found("flat.dlq"), None);
}

#[test]
fn formats_that_can_not_work_are_refused_with_their_line() {
    let one = |pattern: &str, format: &str| {
        format!(
            "[[routes]]\npattern = '{pattern}'\ntransport = 't'\ntopic = 'x'\nformat = '{format}'\n"
        )
    };
    for (routes, expected) in [
        (one("a.b", "flatt"), "did you mean `flat`?"),
        (one("a.b", "protobuf"), "known: domain, entity"),
        (one("a.*", "plain"), "`a.*` takes several"),
        (
            one("a.b", "flat") + &one("a.c", "entity"),
            "written as entity and, by another route, as flat",
        ),
        (
            one("a.b", "flat") + "[[routes]]\npattern = 'a.c'\ntransport = 't'\ntopic = 'x'\n",
            "written as the transport's own and, by another route, as flat",
        ),
    ] {
        let error = table(&routes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("polybus.toml:"), "{error}");
    }
}
