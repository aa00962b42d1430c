//! The settings of a transport, as its factory reads them.

use std::time::Duration;

use serde::Deserialize;

use super::super::*;
use super::parse;
use crate::ErrorKind;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    brokers: Vec<String>,
    password: String,
    port: u16,
    ratio: f64,
    tls: Option<bool>,
    acks: Acks,
    #[serde(deserialize_with = "fields::duration")]
    linger: Duration,
    #[serde(deserialize_with = "fields::optional_duration")]
    timeout: Option<Duration>,
    #[serde(deserialize_with = "fields::size")]
    buffer: usize,
    #[serde(deserialize_with = "fields::positive")]
    count: u32,
    nested: std::collections::BTreeMap<String, Vec<i8>>,
    either: Either,
}

#[derive(Debug, Deserialize, PartialEq, Default)]
#[serde(rename_all = "snake_case")]
enum Acks {
    #[default]
    All,
    Some(u8),
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(untagged)]
enum Either {
    Text(String),
    Number(i64),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            password: String::new(),
            port: 0,
            ratio: 0.0,
            tls: None,
            acks: Acks::All,
            linger: Duration::ZERO,
            timeout: None,
            buffer: 0,
            count: 1,
            nested: Default::default(),
            either: Either::Number(0),
        }
    }
}

/// The section of a transport whose settings begin in line 4.
fn section(lines: &str, variables: &[(&str, &str)]) -> Section {
    let text = format!("service.name = 's'\n[transports.kafka]\nkind = 'kafka'\n{lines}");
    let config = parse(&text, variables).unwrap();
    config.transports["kafka"].section.clone()
}

#[track_caller]
fn error(lines: &str) -> String {
    let error = section(lines, &[]).parse::<Settings>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    // What shows nowhere must not hide in a cause either.
    assert_eq!(format!("{error:?}"), format!("Config: {error}"));
    error.to_string()
}

#[test]
fn settings_of_every_type_are_read() {
    let settings: Settings = section(
        r#"
        brokers = ["a:1", "b:2"]
        password = "p"
        port = 6379
        ratio = 0.5
        tls = true
        acks = { some = 2 }
        linger = "5ms"
        timeout = "1m"
        buffer = "32MiB"
        count = 3
        nested = { a = [1, -2] }
        either = "x"
        "#,
        &[],
    )
    .parse()
    .unwrap();
    let expected = Settings {
        brokers: vec!["a:1".into(), "b:2".into()],
        password: "p".into(),
        port: 6379,
        ratio: 0.5,
        tls: Some(true),
        acks: Acks::Some(2),
        linger: Duration::from_millis(5),
        timeout: Some(Duration::from_secs(60)),
        buffer: 32 << 20,
        count: 3,
        nested: [("a".into(), vec![1, -2])].into(),
        either: Either::Text("x".into()),
    };
    assert_eq!(settings, expected);
    assert_eq!(
        Section::default().parse::<Settings>().unwrap(),
        Settings::default()
    );
}

#[test]
fn settings_from_the_environment_are_read_as_what_is_asked_for() {
    let variables = [
        ("PORT", "6379"),
        ("TLS", "true"),
        ("RATIO", "0.25"),
        ("PASSWORD", "12345"),
        ("POLYBUS__transports__kafka__buffer", "4096"),
        ("POLYBUS__transports__kafka__acks", "all"),
        ("POLYBUS__transports__kafka__either", "7"),
        ("POLYBUS__transports__kafka__nested__b", "[3]"),
    ];
    let lines = "port = '${PORT}'\ntls = '${TLS}'\nratio = '${RATIO}'\npassword = '${PASSWORD}'";
    let settings: Settings = section(lines, &variables).parse().unwrap();
    let expected = Settings {
        port: 6379,
        tls: Some(true),
        ratio: 0.25,
        password: "12345".into(),
        buffer: 4096,
        either: Either::Number(7),
        nested: [("b".into(), vec![3])].into(),
        ..Settings::default()
    };
    assert_eq!(settings, expected);
}

#[test]
fn an_error_has_file_line_and_key_and_never_the_value() {
    for (lines, expected) in [
        (
            "broker = 'hunter2'",
            "transports.kafka.broker: unknown key; known: brokers, password, port, ratio, tls, \
             acks, linger, timeout, buffer, count, nested, either\
             \n  did you mean `brokers`?",
        ),
        (
            "password = 7777",
            "transports.kafka.password: must be a string, not this number",
        ),
        (
            "password = ['hunter2']",
            "transports.kafka.password: must be a string, not an array",
        ),
        (
            "brokers = 'hunter2'",
            "transports.kafka.brokers: must be an array, not this text",
        ),
        (
            "brokers = ['a', 7777]",
            "transports.kafka.brokers[1]: must be a string, not this number",
        ),
        (
            "port = 77777",
            "transports.kafka.port: must be a whole number from 0 to 65535, not this number",
        ),
        (
            "tls = 'hunter2'",
            "transports.kafka.tls: must be `true` or `false`, not this text",
        ),
        (
            "acks = 'hunter2'",
            "transports.kafka.acks: the value is unknown; known: all, some",
        ),
        (
            "linger = 'hunter2'",
            "transports.kafka.linger: `...` is not a duration\
             \n  write a number and a unit: `200ms`, `30s`, `5m`, `1h`, `7d`",
        ),
        (
            "buffer = 'hunter2'",
            "transports.kafka.buffer: `...` is not a size\
             \n  write a number of bytes, or a number and a unit: `64KiB`, `1MiB`",
        ),
        ("count = 0", "transports.kafka.count: must be at least 1"),
        (
            "nested = { 'a b' = [1, 'hunter2'] }",
            "transports.kafka.nested.\"a b\"[1]: must be a whole number, not this text",
        ),
        (
            "either = ['hunter2']",
            "transports.kafka.either: data did not match any variant of untagged enum Either",
        ),
    ] {
        assert_eq!(error(lines), format!("polybus.toml:4: {expected}"));
    }
}

#[test]
fn what_a_type_says_about_a_secret_is_cut_out() {
    #[derive(Debug, Deserialize)]
    struct Strict {
        #[serde(rename = "url")]
        _url: Url,
    }
    #[derive(Debug, Deserialize)]
    #[serde(try_from = "String")]
    struct Url;
    impl TryFrom<String> for Url {
        type Error = String;
        fn try_from(text: String) -> Result<Self, String> {
            Err(format!("a url like {text} or {text:?} is a bad thing"))
        }
    }
    for (text, expected) in [
        (
            "'redis://:hunter2@h'",
            "a url like ... or \"...\" is a bad thing",
        ),
        ("'a\"b\\c'", "a url like ... or \"...\" is a bad thing"),
        ("'a'", "... url like ... or \"...\" is ... bad thing"),
        ("''", "a url like  or \"\" is a bad thing"),
    ] {
        let section: Section = format!("url = {text}").parse().unwrap();
        let error = section.parse::<Strict>().unwrap_err();
        assert_eq!(error.to_string(), format!("section:1: url: {expected}"));
    }
}

#[test]
fn a_factory_can_refuse_a_setting_with_its_place() {
    let section = section("port = 1\n", &[]);
    let error = section.invalid("port", "is taken");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(
        error.to_string(),
        "polybus.toml:4: transports.kafka.port: is taken"
    );
    let error = section.invalid("brokers", "needs one at least");
    assert_eq!(
        error.to_string(),
        "polybus.toml:2: transports.kafka.brokers: needs one at least"
    );
    let error = Section::default().invalid("port", "is taken");
    assert_eq!(error.to_string(), "port: is taken");
}

#[test]
fn debug_shows_keys_and_no_values() {
    let text =
        "service.name = 's'\n[transports.r]\nkind = 'r'\nurl = '${U}'\ntls = { key = 'hunter2' }";
    let config = parse(text, &[("U", "hunter2")]).unwrap();
    let section = &config.transports["r"].section;
    assert_eq!(format!("{section:?}"), r#"{"url", "tls"}"#);
    assert!(!section.is_empty());
    assert!(!format!("{config:#?}").contains("hunter2"));
}
