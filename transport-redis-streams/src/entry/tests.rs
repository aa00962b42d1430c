use polybus_core::Topic;

use super::*;

fn event() -> Event {
    Event::builder("user.created")
        .id("1")
        .source("accounts")
        .without_time()
        .content_type("application/json")
        .key("u-1")
        .data("{\"n\":1}")
        .build()
        .unwrap()
}

fn headers(headers: &[(&str, Option<&str>)]) -> Headers {
    let owned = headers.iter().map(|(name, value)| {
        (
            (*name).into(),
            value.map(|value| Bytes::from(value.to_owned())),
        )
    });
    owned.collect()
}

/// The fields that are written, as text.
fn written(outgoing: &Outgoing) -> Vec<(String, String)> {
    written_as(Format::Default, outgoing)
}

fn written_as(format: Format, outgoing: &Outgoing) -> Vec<(String, String)> {
    let mut writing = Writing::default();
    writing.format = format;
    let command = append(outgoing, &writing, &mut Vec::new());
    let arguments: Vec<String> = command
        .args_iter()
        .map(|argument| match argument {
            redis::Arg::Simple(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            _ => panic!("only plain arguments are written"),
        })
        .collect();
    assert_eq!(arguments[..3], ["XADD", "users", "*"]);
    let fields = arguments[3..].chunks_exact(2);
    fields
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
}

fn values<'a>(fields: &'a [(&str, &str)]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    fields
        .iter()
        .map(|(name, content)| (name.as_bytes(), content.as_bytes()))
}

fn read_back(outgoing: &Outgoing) -> Read {
    read_back_as(Format::Default, outgoing)
}

fn read_back_as(format: Format, outgoing: &Outgoing) -> Read {
    let fields = written_as(format, outgoing);
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    read(values(&fields))
}

fn topic() -> Topic {
    Topic::new("users")
}

const CE: &str = r#"{"specversion":"1.0","id":"1","source":"accounts","type":"user.created","datacontenttype":"application/json","partitionkey":"u-1"}"#;

#[test]
fn an_event_is_two_fields_and_one_for_each_header() {
    let extra = headers(&[
        ("trace", Some("t")),
        ("trace", Some("u")),
        ("empty", Some("")),
        ("null", None),
    ]);
    let outgoing = Outgoing::new(topic(), event()).with_headers(extra.clone());
    let expected = [
        ("ce", CE),
        ("data", "{\"n\":1}"),
        ("h:trace", "t"),
        ("h:trace", "u"),
        ("h:empty", ""),
        ("n:null", ""),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(written(&outgoing), expected);
    let read = read_back(&outgoing);
    assert_eq!(read.content.ok(), Some(event()));
    assert_eq!(read.headers, extra);
}

#[test]
fn as_fields_an_event_has_one_for_each_attribute() {
    let extra = headers(&[
        ("trace", Some("t")),
        ("ce_id", Some("other")),
        ("null", None),
    ]);
    let outgoing = Outgoing::new(topic(), event()).with_headers(extra.clone());
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", "1"),
        ("ce_source", "accounts"),
        ("ce_type", "user.created"),
        ("content-type", "application/json"),
        ("ce_partitionkey", "u-1"),
        ("data", "{\"n\":1}"),
        ("h:trace", "t"),
        ("h:ce_id", "other"),
        ("n:null", ""),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(written_as(Format::Fields, &outgoing), expected);
    let read = read_back_as(Format::Fields, &outgoing);
    assert_eq!(read.content.ok(), Some(event()));
    assert_eq!(read.headers, extra);
}

#[test]
fn an_event_that_holds_an_event_comes_back_as_itself() {
    for format in [Format::Default, Format::Fields] {
        let inner = Event::builder("forwarded").source("s").id("2");
        let inner = inner.content_type("Application/CloudEvents+json").data(CE);
        let outer = inner.build().unwrap();
        let read = read_back_as(format, &Outgoing::new(topic(), outer.clone()));
        assert_eq!(read.content.ok(), Some(outer), "{format:?}");
    }
}

#[test]
fn plainly_an_event_is_its_data_and_its_key() {
    let extra = headers(&[("trace", Some("t"))]);
    let outgoing = Outgoing::new(topic(), event()).with_headers(extra);
    let expected = [("k:", "u-1"), ("data", "{\"n\":1}")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(written_as(Format::Plain, &outgoing), expected);
    let (record, error) = read_back_as(Format::Plain, &outgoing).content.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    let (key, data) = (Some("u-1".into()), Some("{\"n\":1}".into()));
    assert_eq!(record, RawRecord::new(key, Headers::new(), data));

    let empty = Event::builder("t").source("s").build().unwrap();
    let read = read_back_as(Format::Plain, &Outgoing::new(topic(), empty));
    assert_eq!(read.content.unwrap_err().0, RawRecord::default());
}

#[test]
fn a_raw_record_is_written_as_it_is_in_every_format() {
    let record = RawRecord::new(Some("k".into()), headers(&[("a", Some("1"))]), None);
    let outgoing = Outgoing::raw(topic(), record).with_headers(headers(&[("b", Some("2"))]));
    for format in [Format::Fields, Format::Plain] {
        assert_eq!(written_as(format, &outgoing), written(&outgoing));
    }
}

#[test]
fn no_data_is_no_field_and_empty_data_is_an_empty_one() {
    for data in [None, Some("")] {
        let mut builder = Event::builder("t").source("s").id("1");
        if let Some(data) = data {
            builder = builder.data(data);
        }
        let event = builder.build().unwrap();
        let outgoing = Outgoing::new(topic(), event.clone());
        assert_eq!(written(&outgoing).len(), 1 + usize::from(data.is_some()));
        assert_eq!(read_back(&outgoing).content.ok(), Some(event));
    }
}

#[test]
fn a_record_that_is_no_event_comes_back_as_it_was() {
    let value = Some(Bytes::from_static(b"raw"));
    let key = Some(Bytes::from_static(b"key"));
    let known = headers(&[
        ("a", Some("1")),
        ("a", Some("2")),
        ("null", None),
        ("h:b", Some("3")),
        ("ce", Some("{")),
    ]);
    for record in [
        RawRecord::new(None, Headers::new(), None),
        RawRecord::new(None, Headers::new(), value.clone()),
        RawRecord::new(None, Headers::new(), Some(Bytes::new())),
        RawRecord::new(key.clone(), Headers::new(), None),
        RawRecord::new(key, headers(&[("null", None)]), value.clone()),
        RawRecord::new(None, headers(&[("only", Some("header"))]), None),
    ] {
        let (read, error) = read_back(&Outgoing::raw(topic(), record.clone()))
            .content
            .unwrap_err();
        assert_eq!(read, record);
        assert_eq!(error.kind(), ErrorKind::Decode);
    }
    // The field that made it undecodable comes first.
    let record = RawRecord::new(None, known, value);
    let (read, error) = read_back(&Outgoing::raw(topic(), record.clone()))
        .content
        .unwrap_err();
    assert_eq!(read.headers.len(), record.headers.len());
    assert_eq!(read.headers.first("ce"), record.headers.first("ce"));
    assert!(error.message().contains("JSON"), "{error}");
}

#[test]
fn headers_of_a_raw_record_stand_beside_its_own() {
    let record = RawRecord::new(None, headers(&[("a", Some("1"))]), Some("raw".into()));
    let outgoing =
        Outgoing::raw(topic(), record).with_headers(headers(&[("b", Some("2")), ("c", None)]));
    let (read, _) = read_back(&outgoing).content.unwrap_err();
    assert_eq!(
        read.headers,
        headers(&[("a", Some("1")), ("b", Some("2")), ("c", None)])
    );
}

#[test]
fn binary_mode_is_read() {
    let read = read(values(&[
        ("ce_specversion", "1.0"),
        ("ce_id", "1"),
        ("ce_source", "accounts"),
        ("ce_type", "user.created"),
        ("ce_partitionkey", "u-1"),
        ("content-type", "application/json"),
        ("other", "o"),
        ("h:trace", "t"),
        ("n:null", ""),
        ("data", "{\"n\":1}"),
    ]));
    assert_eq!(read.content.ok(), Some(event()));
    let expected = headers(&[("other", Some("o")), ("trace", Some("t")), ("null", None)]);
    assert_eq!(read.headers, expected);
}

#[test]
fn the_key_of_a_forwarded_record_is_the_events() {
    let fields = [
        ("ce_specversion", "1.0"),
        ("ce_id", "1"),
        ("ce_source", "s"),
        ("ce_type", "t"),
        ("k:", "u-1"),
    ];
    let read = read(values(&fields));
    assert_eq!(read.content.unwrap().key(), Some("u-1"));
    assert!(read.headers.is_empty());
}

#[test]
fn structured_mode_is_read() {
    let whole = CE.replace('}', r#","data":{"n":1}}"#);
    for fields in [
        &[("data", whole.as_str())][..],
        &[
            ("content-type", "application/cloudevents+json"),
            ("data", &whole),
        ],
    ] {
        let read = read(values(fields));
        assert_eq!(read.content.ok(), Some(event()));
        assert!(read.headers.is_empty());
    }
}

#[test]
fn other_fields_beside_an_event_are_headers() {
    let read = read(values(&[
        ("x", "1"),
        ("ce", CE),
        ("data", "{\"n\":1}"),
        ("data", "2"),
    ]));
    assert_eq!(read.content.ok(), Some(event()));
    assert_eq!(
        read.headers,
        headers(&[("x", Some("1")), ("data", Some("2"))])
    );
}

#[test]
fn what_is_no_event_says_why_and_is_kept() {
    for (fields, why) in [
        (&[][..], "no field `ce`"),
        (&[("x", "1")], "no field `ce`"),
        (&[("data", "x")], "JSON"),
        (&[("ce", "{}"), ("data", "x")], "`specversion` is missing"),
        (&[("ce_id", "1")], "ce_specversion"),
        (
            &[("content-type", "text/plain"), ("data", "x")],
            "no header",
        ),
        (
            &[("content-type", "application/cloudevents+json")],
            "no field `ce`",
        ),
    ] {
        let (record, error) = read(values(fields)).content.unwrap_err();
        assert!(error.message().contains(why), "{fields:?}: {error}");
        assert_eq!(error.kind(), ErrorKind::Decode);
        let kept = record.headers.len() + usize::from(record.value.is_some());
        assert_eq!(kept, fields.len());
    }
}

#[test]
fn fields_that_are_no_text_are_kept() {
    let fields = [(&b"\xff"[..], &b"\xfe"[..]), (b"data", b"\x00\xff")];
    let (record, _) = read(fields.into_iter()).content.unwrap_err();
    assert_eq!(record.value.as_deref(), Some(&b"\x00\xff"[..]));
    let (name, value) = record.headers.iter().next().unwrap();
    assert_eq!((name, value.unwrap().as_ref()), ("\u{fffd}", &b"\xfe"[..]));
}
