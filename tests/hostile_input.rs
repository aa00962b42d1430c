//! Bytes of strangers: what the fuzz targets run (`fuzz/`), bounded, and bombs that no chance finds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(
    unreachable_pub,
    reason = "it is a module of a library, for the fuzz targets"
)]
#[path = "../fuzz/src/subjects.rs"]
mod subjects;

use allocation_counter::measure;
use proptest::collection::vec;
use proptest::prelude::*;

/// Memory that a subject may take at one time, beside what its input is worth.
const FIXED: u64 = 1 << 20;

/// How many bytes of memory a byte of input may be worth: a value of Avro is some 60 bytes large, read
/// more than once.
const WORTH: u64 = 1000;

type Subject = fn(&[u8]);

/// Runs a subject, and looks at what it took.
fn bounded(subject: Subject, data: &[u8]) {
    // What is made once is none of the input's.
    subject(b"");
    let taken = measure(|| subject(data));
    let allowed = FIXED + WORTH * data.len() as u64;
    assert!(
        taken.bytes_max <= allowed,
        "{} bytes for {} of input",
        taken.bytes_max,
        data.len()
    );
}

/// Bytes by chance, text, and JSON with the names that mean something.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let member = prop_oneof![
        Just("\"specversion\":\"1.0\""),
        Just("\"id\":\"1\""),
        Just("\"source\":\"s\""),
        Just("\"type\":\"a.b\""),
        Just("\"timestamp\":\"2026-11-21T10:00:00Z\""),
        Just("\"time\":7"),
        Just("\"data\":{\"a\":[1]}"),
        Just("\"data_base64\":\"AA==\""),
        Just("\"payload\":null"),
        Just("\"metadata\":{\"eventId\":\"1\",\"eventType\":\"a\",\"source\":\"s\"}"),
        Just("\"header\":{\"id\":\"1\",\"type\":\"a\",\"origin\":\"o\"}"),
        Just("\"body\":[]"),
        Just("\"ä\":-1e400"),
    ];
    let json = vec(member, 0..12).prop_map(|members| format!("{{{}}}", members.join(",")).into());
    let line = prop_oneof![
        Just("service.name = 's'"),
        Just("[transports.t]\nkind = 'memory'"),
        Just("[[routes]]\npattern = 'a.*'\ntransport = 't'\ntopic = '{1}'"),
        Just("codec = 'avro'"),
        Just("format = \"flat\""),
        Just("[subscriptions.s]"),
        Just("retry = { max_attempts = \"${NAME}\" }"),
    ];
    let toml = vec(prop_oneof![line.prop_map(str::to_owned), ".{0,20}"], 0..10);
    let toml = toml.prop_map(|lines| lines.join("\n").into_bytes());
    // The pieces that the subjects take before they come to the bytes themselves.
    let with_head =
        (vec(any::<u8>(), 0..4), json).prop_map(|(head, json): (_, Vec<u8>)| [head, json].concat());
    prop_oneof![
        vec(any::<u8>(), 0..2000),
        ".{0,200}".prop_map(String::into_bytes),
        with_head,
        toml,
    ]
}

macro_rules! hold_under_chance {
    ($($subject:ident)*) => {$(
        #[test]
        fn $subject() {
            let runner = proptest::test_runner::Config {
                cases: 400,
                failure_persistence: None,
                ..Default::default()
            };
            proptest!(runner, |(data in input())| bounded(subjects::$subject, &data));
        }
    )*};
}

/// No input by chance brings a subject to panic, or to take more than it is worth.
mod under_chance {
    use super::*;

    hold_under_chance! {
        kafka_headers redis_fields structured_json formats config pattern codecs frame
    }
}

const ALL: [Subject; 8] = [
    subjects::kafka_headers,
    subjects::redis_fields,
    subjects::structured_json,
    subjects::formats,
    subjects::config,
    subjects::pattern,
    subjects::codecs,
    subjects::frame,
];

/// Gives bytes to every subject, also behind what they take off first.
fn to_all(data: &[u8]) {
    for subject in ALL {
        for head in [
            &b""[..],
            &[0],
            &[0, 0],
            &[0, 0, 1],
            &[1, 0],
            &[2, 0],
            &[3, 0],
        ] {
            bounded(subject, &[head, data].concat());
        }
    }
}

#[test]
fn what_nests_without_end_does_not_overflow_the_stack() {
    for (open, close) in [
        ("[", "]"),
        ("{\"a\":", "}"),
        ("a.", ""),
        ("[[a", "]]"),
        ("(", ")"),
    ] {
        to_all((open.repeat(30_000) + &close.repeat(30_000)).as_bytes());
    }
    // Arrays of MessagePack; records of Avro; messages of Protobuf.
    to_all(&[0x91; 30_000]);
    to_all(&[0x02; 30_000]);
    to_all(&[0x0a, 0x02].repeat(15_000));
}

#[test]
fn a_length_that_is_not_there_takes_no_memory() {
    for data in [
        &b"\xdd\xff\xff\xff\xff"[..],
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f\x00",
        b"\x0a\xff\xff\xff\xff\x07",
        b"\x12\xff\xff\xff\xff\x07\x00",
    ] {
        to_all(data);
    }
}

#[test]
fn ten_thousand_members_are_refused_or_read_in_bounds() {
    let members: Vec<_> = (0..10_000).map(|n| format!("\"a{n}\":\"\"")).collect();
    to_all(format!("{{{}}}", members.join(",")).as_bytes());
    to_all(&b"\x00\x01\x00".repeat(10_000));
}
