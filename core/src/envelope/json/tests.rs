use super::*;
use crate::event::EventBuilder;

fn full() -> EventBuilder {
    Event::builder("deal.status.changed")
        .id("ab-1")
        .source("deals/\"münchen\"\n")
        .subject("deal-7")
        .time("2026-02-03T04:05:06.789Z".parse().unwrap())
        .content_type("application/json")
        .schema("https://example.org/deal.json")
        .key("key 🗝")
        .data_version("1.2.0")
        .correlation("c-1")
        .extension("count", -7)
        .extension("test", true)
        .extension("empty", "")
}

fn attributes(event: &Event) -> String {
    let mut out = Vec::new();
    write_attributes(event, &mut out);
    String::from_utf8(out).unwrap()
}

fn structured(event: &Event) -> String {
    let mut out = Vec::new();
    write_event(event, &mut out);
    String::from_utf8(out).unwrap()
}

#[track_caller]
fn check_round_trip(event: &Event) {
    let read = read_attributes(attributes(event).as_bytes(), event.data().cloned());
    assert_eq!(&read.unwrap(), event);
    let read = read_event(&structured(event).into());
    assert_eq!(&read.unwrap(), event);
}

#[test]
fn attributes_stand_as_one_small_object() {
    let event = full().source("deals").data("7").build().unwrap();
    assert_eq!(
        attributes(&event),
        r#"{"specversion":"1.0","id":"ab-1","source":"deals","type":"deal.status.changed","#
            .to_owned()
            + r#""subject":"deal-7","time":"2026-02-03T04:05:06.789Z","#
            + r#""datacontenttype":"application/json","dataschema":"https://example.org/deal.json","#
            + r#""partitionkey":"key 🗝","dataversion":"1.2.0","correlationid":"c-1","#
            + r#""count":-7,"test":true,"empty":""}"#
    );
    let least = Event::builder("t").id("i").source("s").without_time();
    assert_eq!(
        structured(&least.build().unwrap()),
        r#"{"specversion":"1.0","id":"i","source":"s","type":"t"}"#
    );
}

#[test]
fn every_attribute_survives_the_round_trip() {
    check_round_trip(&full().data(r#"{"a": [1, "ü"]}"#).build().unwrap());
    check_round_trip(&full().without_time().build().unwrap());
    check_round_trip(&full().extension("least", i32::MIN).build().unwrap());
    check_round_trip(
        &full()
            .extension("controls", "\u{0}\u{1f}\\")
            .build()
            .unwrap(),
    );
}

#[test]
fn data_survives_whatever_its_content_type_says() {
    let json: Option<&str> = Some("application/json");
    for (content_type, data) in [
        (json, &b""[..]),
        (json, b"null"),
        (json, b"\"text\""),
        (json, b"not json"),
        (json, b"\xff\x00"),
        (None, b"[1,2]"),
        (None, b""),
        (None, b"plain"),
        (Some("text/plain; charset=utf-8"), b""),
        (Some("text/plain"), "\"grüße\"\n".as_bytes()),
        (Some("text/plain"), b"\xff"),
        (Some("application/soap+xml"), b"<a/>"),
        (Some("application/octet-stream"), b"{}"),
        (Some("application/avro"), b"\x00\x01\x02"),
    ] {
        let mut builder = Event::builder("t").source("s").data(data.to_vec());
        if let Some(content_type) = content_type {
            builder = builder.content_type(content_type);
        }
        check_round_trip(&builder.build().unwrap());
    }
    check_round_trip(&full().build().unwrap());
}

#[test]
fn data_stands_where_the_format_wants_it() {
    for (content_type, data, member) in [
        ("application/json", " {\"a\":1} ", r#""data":{"a":1}}"#),
        ("application/vnd.a+json", "[]", r#""data":[]}"#),
        ("application/json", "{", r#""data_base64":"ew=="}"#),
        ("text/plain", "a\"b", r#""data":"a\"b"}"#),
        ("application/xml", "<a/>", r#""data":"<a/>"}"#),
        ("image/png", "abc", r#""data_base64":"YWJj"}"#),
    ] {
        let event = Event::builder("t").source("s");
        let event = event.content_type(content_type).data(data).build().unwrap();
        let json = structured(&event);
        assert!(json.ends_with(member), "{json}");
    }
}

#[test]
fn events_of_others_are_read() {
    let event = read_event(&Bytes::from_static(
        br#" {
            "data" : { "price" : 7 },
            "comexampleextension1" : "value",
            "comexampleothervalue" : 5,
            "subject" : null, "unset" : null,
            "time" : "2018-04-05T17:31:00+02:00",
            "type" : "com.example.someevent", "source" : "/mycontext\/\u00fc",
            "id" : "A234-1234-1234", "specversion" : "1.0"
        } "#,
    ))
    .unwrap();
    assert_eq!(event.source(), "/mycontext/ü");
    assert_eq!(event.subject(), None);
    assert_eq!(event.content_type(), None);
    assert_eq!(event.data().unwrap(), &br#"{ "price" : 7 }"#[..]);
    assert_eq!(event.time().unwrap().to_string(), "2018-04-05T15:31:00Z");
    assert_eq!(event.extension("comexampleothervalue"), Some(5.into()));
    assert_eq!(event.extensions().count(), 2);
}

#[test]
fn json_that_is_no_string_is_kept_whatever_the_content_type() {
    let json = r#"{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"text/plain","data":{"a":1}}"#;
    let event = read_event(&json.into()).unwrap();
    assert_eq!(event.data().unwrap(), &br#"{"a":1}"#[..]);
}

#[test]
fn structured_data_shares_its_bytes() {
    let json = Bytes::from(structured(&full().data("[1,2,3]").build().unwrap()));
    let event = read_event(&json).unwrap();
    assert!(
        json.as_ptr_range()
            .contains(&event.data().unwrap().as_ptr())
    );
}

/// `members` stand behind the four required attributes; one given here replaces it.
fn with(members: &str) -> String {
    let required = [
        r#""specversion":"1.0""#,
        r#""id":"1""#,
        r#""source":"s""#,
        r#""type":"t""#,
    ];
    let kept = required.iter().filter(|member| {
        let name = member.split(':').next().unwrap();
        !members.contains(name)
    });
    let all: Vec<&str> = kept.copied().chain([members]).collect();
    format!("{{{}}}", all.join(","))
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let many: Vec<String> = (0..=MAX_EXTENSIONS)
        .map(|n| format!(r#""x{n}":1"#))
        .collect();
    for (members, why) in [
        (r#""specversion":"0.3""#, "`specversion` is `0.3`"),
        (r#""specversion":1.0"#, "`specversion` is a number"),
        (r#""specversion":null"#, "`specversion` is missing"),
        (r#""id":"""#, "`id` is empty"),
        (r#""id":7"#, "`id` is a number"),
        (r#""source":null"#, "`source` is missing"),
        (r#""type":["a"]"#, "`type` is an array"),
        (r#""type":"a","type":"b""#, "`type` stands there twice"),
        (r#""subject":{"a":1}"#, "`subject` is an object"),
        (r#""subject":true"#, "`subject` is a boolean"),
        (r#""time":"yesterday""#, "`time`"),
        (r#""time":"2018-04-05 17:31:00Z""#, "`time`"),
        (r#""time":"2018-04-05T17:31:00""#, "`time`"),
        (r#""time":"2018-04-05T17:31:00Z[UTC]""#, "`time`"),
        (r#""time":"2018-13-05T17:31:00Z""#, "`time`"),
        (r#""time":12"#, "`time` is a number"),
        (
            r#""tenant":1.5"#,
            "`tenant` is a number that is no 32 bit integer",
        ),
        (
            r#""tenant":2147483648"#,
            "`tenant` is a number out of the range",
        ),
        (
            r#""tenant":-2147483649"#,
            "`tenant` is a number out of the range",
        ),
        (r#""tenant":[]"#, "`tenant` is an array"),
        (r#""tenant":1,"tenant":1"#, "`tenant` stands there twice"),
        (r#""Tenant":1"#, "`Tenant`"),
        (r#""with-dash":1"#, "`with-dash`"),
        (r#""":1"#, "``"),
        (r#""data":1,"data":1"#, "`data` stands there twice"),
        (r#""data":1,"data_base64":"""#, "`data` and `data_base64`"),
        (r#""data_base64":"*""#, "`data_base64` is not base64"),
        (r#""data_base64":1"#, "`data_base64` is a number"),
        (&many.join(","), "`x128` is one too many"),
    ] {
        let json = with(members);
        let error = read_event(&json.clone().into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode, "{json}");
        assert!(error.message().contains(why), "{json}: {error}");
    }
}

#[test]
fn what_is_no_object_is_refused() {
    let deep = "[".repeat(200_000);
    let nested = with(&format!(r#""tenant":{deep}"#));
    let data = with(&format!(r#""data":{deep}"#));
    for json in [
        "",
        "null",
        "[]",
        "7",
        "{",
        "{}",
        "{}x",
        "\u{feff}{}",
        &deep,
        &nested,
        &data,
    ] {
        let error = read_event(&json.to_owned().into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert_eq!(
            read_attributes(json.as_bytes(), None).unwrap_err().kind(),
            ErrorKind::Decode
        );
    }
    assert!(read_event(&Bytes::from_static(b"{\"id\":\"\xff\"}")).is_err());
}

#[test]
fn attributes_do_not_hold_the_data() {
    for member in [r#""data":1"#, r#""data_base64":"YQ==""#] {
        let error = read_attributes(with(member).as_bytes(), None).unwrap_err();
        assert!(error.message().contains("`data`"), "{error}");
    }
    let event = read_attributes(with(r#""tenant":"a""#).as_bytes(), Some("x".into())).unwrap();
    assert_eq!(event.data(), Some(&Bytes::from_static(b"x")));
}
