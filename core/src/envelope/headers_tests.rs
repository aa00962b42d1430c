use super::*;
use crate::EventBuilder;

type Record = Vec<(String, Option<Vec<u8>>)>;

fn written(event: &Event, key: KeyPlace) -> Record {
    let mut headers = Vec::new();
    write(event, key, |name, value| {
        headers.push((name.to_owned(), Some(value.to_vec())));
    });
    headers
}

fn parse(headers: &Record, key: Option<&str>, data: Option<&str>) -> Result<Message> {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_deref()));
    read(headers, key, data.map(|data| Bytes::from(data.to_owned())))
}

fn event_of(message: Message) -> (Event, Headers) {
    match message {
        Message::Event(event, headers) => (event, headers),
        Message::Structured(..) => panic!("not structured"),
    }
}

fn header(name: &str, value: &str) -> (String, Option<Vec<u8>>) {
    (name.to_owned(), Some(value.as_bytes().to_vec()))
}

fn minimal() -> Record {
    vec![
        header("ce_specversion", "1.0"),
        header("ce_id", "7"),
        header("ce_source", "s"),
        header("ce_type", "deal.closed"),
    ]
}

fn full() -> EventBuilder {
    Event::builder("deal.closed")
        .id("7")
        .source("deal-monitor")
        .subject("deal-123")
        .key("tenant-1")
        .time("2026-11-21T08:30:00.123456789Z".parse().unwrap())
        .schema("https://example.com/deal")
        .content_type("application/json")
        .data_version("1.2.0")
        .correlation("c")
        .extension("tenant", "größe")
        .data("{}")
}

#[test]
fn every_attribute_survives_with_the_key_in_the_record() {
    let event = full().build().unwrap();
    let headers = written(&event, KeyPlace::Record);
    assert!(headers.iter().all(|(name, _)| name != "ce_partitionkey"));
    let (read, others) = event_of(parse(&headers, event.key(), Some("{}")).unwrap());
    assert_eq!(read, event);
    assert!(others.is_empty());
}

#[test]
fn every_attribute_survives_with_the_key_in_a_header() {
    let event = full().build().unwrap();
    let headers = written(&event, KeyPlace::Header);
    assert!(headers.contains(&header("ce_partitionkey", "tenant-1")));
    let (read, _) = event_of(parse(&headers, None, Some("{}")).unwrap());
    assert_eq!(read, event);
}

#[test]
fn only_what_is_set_is_written() {
    let event = Event::builder("a").id("1").source("s").without_time();
    let headers = written(&event.build().unwrap(), KeyPlace::Record);
    let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ce_specversion", "ce_id", "ce_source", "ce_type"]);
}

#[test]
fn the_key_is_told_apart_from_the_subject() {
    let base = || Event::builder("a").id("1").source("s").without_time();
    for event in [
        base(),
        base().subject("x"),
        base().key("x"),
        base().subject("x").key("x"),
        base().subject("x").key("y"),
        base().key(""),
        base().subject("x").key(""),
    ] {
        let event = event.build().unwrap();
        let headers = written(&event, KeyPlace::Record);
        let (read, _) = event_of(parse(&headers, event.key(), None).unwrap());
        assert_eq!(read, event);
    }
}

#[test]
fn no_data_is_not_empty_data() {
    for data in [None, Some("")] {
        let (event, _) = event_of(parse(&minimal(), None, data).unwrap());
        assert_eq!(event.data().map(Bytes::len), data.map(str::len));
    }
}

#[test]
fn numbers_and_booleans_become_their_text() {
    let event = full().extension("count", 7).extension("open", true);
    let headers = written(&event.build().unwrap(), KeyPlace::Record);
    assert!(headers.contains(&header("ce_count", "7")));
    assert!(headers.contains(&header("ce_open", "true")));
}

#[test]
fn names_are_read_without_regard_to_case() {
    let headers = vec![
        header("CE_SpecVersion", "1.0"),
        header("Ce_Id", "7"),
        header("ce_SOURCE", "s"),
        header("ce_type", "a"),
        header("Content-Type", "text/plain"),
        header("CE_Tenant", "t"),
    ];
    let (event, others) = event_of(parse(&headers, None, None).unwrap());
    assert_eq!((event.id(), event.source()), ("7", "s"));
    assert_eq!(event.content_type(), Some("text/plain"));
    assert_eq!(event.extension("tenant"), Some("t".into()));
    assert!(others.is_empty());
}

#[test]
fn what_is_no_attribute_is_kept_beside_the_event() {
    let mut headers = minimal();
    headers.push(header("traceparent", "00-1"));
    headers.push(("ce_subject".to_owned(), None));
    headers.push(("empty".to_owned(), None));
    headers.push(header("ce_with-dash", "x"));
    headers.push(header("ce_", "x"));
    headers.push(header("ce_data", "x"));
    headers.push(header("ce_id", "second"));
    headers.push(("raw".to_owned(), Some(vec![0xff])));
    let (event, others) = event_of(parse(&headers, None, None).unwrap());
    assert_eq!((event.id(), event.subject()), ("7", None));
    let kept: Vec<_> = others.iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(
        kept,
        [
            "traceparent",
            "ce_subject",
            "empty",
            "ce_with-dash",
            "ce_",
            "ce_data",
            "ce_id",
            "raw"
        ]
    );
    assert_eq!(others.first("raw").map(AsRef::as_ref), Some(&[0xff][..]));
    assert_eq!(others.first("empty"), None);
}

#[test]
fn what_is_no_event_says_why() {
    let without = |name: &str| {
        let mut headers = minimal();
        headers.retain(|(known, _)| known != name);
        headers
    };
    let with = |name: &str, value: &[u8]| {
        let mut headers = without(name);
        headers.push((name.to_owned(), Some(value.to_vec())));
        headers
    };
    for (headers, why) in [
        (vec![], "no header"),
        (
            vec![header("content-type", "application/json")],
            "no header",
        ),
        (without("ce_specversion"), "ce_specversion"),
        (without("ce_id"), "ce_id"),
        (without("ce_source"), "ce_source"),
        (without("ce_type"), "ce_type"),
        (with("ce_id", b""), "ce_id"),
        (with("ce_specversion", b"0.3"), "0.3"),
        (with("ce_time", b"yesterday"), "yesterday"),
        (with("ce_type", &[0xff, 0xfe]), "ce_type"),
        (with("ce_tenant", &[0xff]), "ce_tenant"),
    ] {
        let error = parse(&headers, Some("k"), Some("x")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode, "{headers:?}");
        assert!(error.to_string().contains(why), "{error} for {headers:?}");
    }
}

#[test]
fn structured_mode_is_told_by_the_content_type() {
    for (content_type, structured) in [
        ("application/cloudevents+json", true),
        ("Application/CloudEvents+JSON; charset=utf-8", true),
        ("application/cloudevents-batch+json", true),
        ("application/json", false),
    ] {
        let mut headers = minimal();
        headers.push(header("content-type", content_type));
        headers.push(header("x", "y"));
        match parse(&headers, None, Some("{}")).unwrap() {
            Message::Structured(found, others) => {
                assert!(structured, "{content_type}");
                assert_eq!((found.as_str(), others.len()), (content_type, 1));
            }
            Message::Event(event, _) => {
                assert!(!structured, "{content_type}");
                assert_eq!(event.content_type(), Some(content_type));
            }
        }
    }
}

#[test]
fn a_record_is_an_event_only_by_headers_that_may_be_attributes() {
    for name in ["ce_id", "CE_ID", "ce_", "content-type", "Content-Type"] {
        assert!(is_attribute(name.as_bytes()), "{name}");
    }
    for name in ["", "ce", "id", "xce_id", "content-types", "traceparent"] {
        assert!(!is_attribute(name.as_bytes()), "{name}");
        let record = vec![header(name, "application/cloudevents+json")];
        assert!(parse(&record, None, None).is_err(), "{name}");
    }
}
