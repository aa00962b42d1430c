use serde::{Deserialize, Serialize};

use super::*;

fn event(content_type: Option<&str>, data: Option<&[u8]>) -> Event {
    let mut builder = Event::builder("a").source("s");
    if let Some(content_type) = content_type {
        builder = builder.content_type(content_type);
    }
    if let Some(data) = data {
        builder = builder.data(data.to_vec());
    }
    builder.build().unwrap()
}

#[test]
fn json_is_read_by_content_type_and_without_one() {
    for content_type in [
        None,
        Some("application/json"),
        Some("Application/JSON; charset=utf-8"),
        Some("application/vnd.deal+json"),
    ] {
        let value: u32 = Codec::decode(&event(content_type, Some(b"7"))).unwrap();
        assert_eq!(value, 7);
    }
}

#[test]
fn what_can_not_be_read_says_why_and_which_event() {
    for (event, why) in [
        (event(None, None), "no data"),
        (event(Some("image/png"), Some(b"7")), "image/png"),
        (event(None, Some(b"{")), "not what the handler takes"),
    ] {
        let error = Codec::decode::<u32>(&event).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.to_string().contains(event.id()), "{error}");
    }
}

#[test]
fn a_codec_reads_what_it_writes_and_is_chosen_by_its_name() {
    for codec in Codec::ALL {
        let read = Codec::of_content_type(codec.content_type());
        assert_eq!(read, Some(codec));
        let name = format!("\"{}\"", codec.name());
        assert_eq!(serde_json::from_str::<Codec>(&name).unwrap(), codec);
    }
    assert_eq!(Codec::of_content_type("image/png"), None);
    assert_eq!(
        Codec::of_content_type("Application/X-Protobuf; a=b"),
        Some(Codec::Protobuf)
    );
}

#[test]
fn a_frame_is_read_as_it_was_written() {
    for indexes in [vec![0], vec![1], vec![0, 3], vec![300, 0, 7]] {
        let data = Frame::write(70_000, Some(&indexes), b"data");
        let frame = Frame::parse(&data).unwrap();
        assert_eq!(frame.schema, 70_000);
        assert_eq!(frame.message_indexes(), Some((indexes, &b"data"[..])));
    }
    // As Confluent documents it: the first message of a file is one zero.
    assert_eq!(Frame::write(1, Some(&[0]), b"d")[..], *b"\0\0\0\0\x01\0d");
    assert_eq!(
        Frame::write(1, Some(&[1]), b"d")[..],
        *b"\0\0\0\0\x01\x02\x02d"
    );
    assert_eq!(Frame::write(1, None, b"d")[..], *b"\0\0\0\0\x01d");
}

#[test]
fn what_is_no_frame_has_none() {
    for data in [&b""[..], b"\0\0\0\0", b"{\"a\":1}", b"\x01\0\0\0\x01"] {
        assert_eq!(Frame::parse(data), None, "{data:?}");
    }
    let bad = [
        &b"\0\0\0\0\x01"[..],
        b"\0\0\0\0\x01\xff",
        b"\0\0\0\0\x01\x01",
        b"\0\0\0\0\x01\xfe\xff\x03",
    ];
    for data in bad {
        assert_eq!(
            Frame::parse(data).unwrap().message_indexes(),
            None,
            "{data:?}"
        );
    }
}

#[test]
fn a_message_is_found_where_its_file_declares_it() {
    let file = r#"
        syntax = "proto3"; // message Not {
        /* message Nor { } */
        option x = "message Never { \" }";
        message First { string message = 1; enum Kind { A = 0; } message Inner {} }
        service S { rpc Call (First) returns (Second) {} }
        message Second {
            oneof choice { int32 a = 1; }
            message Deep { message Deeper { bytes b = 1; } }
        }
    "#;
    for (name, index) in [
        ("First", vec![0]),
        ("First.Inner", vec![0, 0]),
        ("Second", vec![1]),
        ("Second.Deep.Deeper", vec![1, 0, 0]),
        ("Unknown", vec![0]),
    ] {
        assert_eq!(
            DataSchema::of_message(file, name).message(),
            index,
            "{name}"
        );
    }
}

#[test]
fn a_message_is_named_with_its_package() {
    let schema = DataSchema::of_message("package a.b; message C {}", "C");
    assert_eq!(schema.name(), Some("a.b.C"));
}

#[cfg(any(feature = "avro", feature = "message-pack"))]
#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct User {
    id: String,
    age: Option<i32>,
}

#[cfg(any(feature = "avro", feature = "message-pack"))]
fn user() -> User {
    User {
        id: "u1".to_owned(),
        age: Some(7),
    }
}

#[cfg(feature = "message-pack")]
mod message_pack {
    use super::*;

    #[test]
    fn fields_are_told_by_their_names() {
        #[derive(Deserialize)]
        struct Newer {
            age: Option<i32>,
            #[serde(default)]
            city: String,
        }
        let data = Codec::MessagePack.encode(&user()).unwrap();
        let event = event(Some("application/msgpack"), Some(&data));
        let read: Newer = Codec::decode(&event).unwrap();
        assert_eq!((read.age, read.city.as_str()), (Some(7), ""));
        assert_eq!(
            to_json(&event).unwrap(),
            serde_json::json!({ "id": "u1", "age": 7 })
        );
    }

    #[test]
    fn what_is_deep_or_more_than_a_value_is_refused() {
        let deep = vec![0x91; 1_000_000];
        for data in [&deep[..], b"\x01\x01", b"\xdd\xff\xff\xff\xff", b"\xc1"] {
            let event = event(Some("application/msgpack"), Some(data));
            let error = Codec::decode::<serde_json::Value>(&event).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Decode);
        }
    }

    #[test]
    fn bytes_have_no_json_and_say_so() {
        let event = event(Some("application/msgpack"), Some(b"\xc4\x01a"));
        let error = to_json(&event).unwrap_err();
        assert!(error.to_string().contains("byte array"), "{error}");
    }
}

#[cfg(feature = "avro")]
mod avro {
    use super::*;

    const USER: &str = r#"{"type":"record","name":"User","fields":[
        {"name":"id","type":"string"},{"name":"age","type":["null","int"],"default":null}]}"#;
    const OLDER: &str =
        r#"{"type":"record","name":"User","fields":[{"name":"id","type":"string"}]}"#;
    const LIST: &str =
        r#"{"type":"record","name":"Node","fields":[{"name":"next","type":["null","Node"]}]}"#;

    fn schema(text: &str) -> &'static DataSchema {
        Box::leak(Box::new(DataSchema::new(SchemaFormat::Avro, text)))
    }

    fn read<T: DeserializeOwned>(taken: Option<&DataSchema>, data: &[u8]) -> Result<T, String> {
        super::super::avro::decode(taken, data).map_err(|error| error.to_string())
    }

    fn framed(data: &[u8]) -> Bytes {
        Frame::write(7, None, data)
    }

    #[test]
    fn data_name_the_schema_that_they_were_written_with() {
        let wire = Wire::serde().with_avro(schema(USER));
        let data = wire.encode(Codec::Avro, &user()).unwrap();
        assert_eq!(data[..2], [0xc3, 0x01]);
        assert_eq!(
            wire.decode(&event(Some("avro/binary"), Some(&data)))
                .unwrap(),
            user()
        );
        let other = Wire::<User>::serde().with_avro(schema(OLDER));
        let error = other
            .decode(&event(Some("application/avro"), Some(&data)))
            .unwrap_err();
        assert!(error.to_string().contains("another Avro schema"), "{error}");
    }

    #[test]
    fn with_the_schema_of_a_registry_data_are_resolved_to_that_of_the_type() {
        let older = schema(OLDER);
        let data = framed(b"\x04u1");
        let read_as = |taken| written_with(Some(older), || read::<User>(taken, &data));
        let expected = User {
            age: None,
            ..user()
        };
        assert_eq!(read_as(Some(schema(USER))).unwrap(), expected);
        assert_eq!(read_as(None).unwrap(), expected);
        let event = event(Some("application/avro"), Some(&data));
        let json = written_with(Some(older), || to_json(&event)).unwrap();
        assert_eq!(json, serde_json::json!({ "id": "u1" }));
    }

    #[test]
    fn data_without_a_known_schema_are_refused() {
        for (data, why) in [
            (framed(b"\x04u1"), "schema 7 of a registry"),
            (Bytes::from_static(b"\x04u1"), "without the name"),
            (Bytes::from_static(b"\xc3\x01short"), "without the name"),
            (Bytes::new(), "without the name"),
        ] {
            let error = read::<User>(Some(schema(USER)), &data).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let proto = DataSchema::new(SchemaFormat::Protobuf, "");
        let error = written_with(Some(&proto), || read::<User>(None, &framed(b""))).unwrap_err();
        assert!(error.contains("Protobuf"), "{error}");
        let broken = DataSchema::new(SchemaFormat::Avro, "{");
        let error = written_with(Some(&broken), || read::<User>(None, &framed(b""))).unwrap_err();
        assert!(error.contains("schema can't be read"), "{error}");
    }

    #[test]
    fn hostile_data_cost_no_more_than_their_size() {
        let read = |text: &str, data: &[u8]| {
            written_with(Some(schema(text)), || {
                read::<serde_json::Value>(None, &framed(data)).unwrap_err()
            })
        };
        let nulls = r#"{"type":"array","items":"null"}"#;
        let endless = r#"{"type":"record","name":"A","fields":[{"name":"a","type":"A"},{"name":"b","type":"A"}]}"#;
        for (schema, data, why) in [
            (LIST, &vec![2; 1_000_000][..], "levels deep"),
            (endless, b"", "levels deep"),
            (nulls, b"\xfe\xff\xff\xff\xff\xff\x7f\0", "take no byte"),
            (nulls, b"\x02", "end before"),
            ("\"string\"", b"\xfe\xff\xff\xff\xff\xff\x7fa", "end before"),
            ("\"bytes\"", b"\x01", "end before"),
            ("\"long\"", &[0xff; 11], "more than 64 bits"),
            (r#"["null","int"]"#, b"\x04", "no variant 2"),
            (
                r#"{"type":"enum","name":"E","symbols":["A"]}"#,
                b"\x01",
                "no variant -1",
            ),
            ("\"null\"", b"\x01", "1 bytes follow"),
        ] {
            let error = read(schema, data);
            assert!(error.contains(why), "{schema}: {error}");
        }
    }

    #[test]
    fn what_nests_as_deep_as_allowed_is_read() {
        #[derive(Deserialize)]
        struct Node {
            next: Option<Box<Node>>,
        }
        let data = framed(&[&[2; 20][..], &[0]].concat());
        let first = written_with(Some(schema(LIST)), || read::<Node>(None, &data).unwrap());
        let nodes = std::iter::successors(Some(&first), |node| node.next.as_deref());
        assert_eq!(nodes.count(), 21);
    }
}

#[cfg(feature = "protobuf")]
mod protobuf {
    use super::*;

    #[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
    struct Order {
        #[prost(string, tag = "1")]
        id: String,
    }

    fn order() -> Order {
        Order {
            id: "o1".to_owned(),
        }
    }

    fn of(data: &[u8]) -> Event {
        event(Some("application/x-protobuf"), Some(data))
    }

    #[test]
    fn a_message_is_read_with_and_without_a_frame() {
        let wire = Wire::serde().with_protobuf(message::<Order>(None));
        let data = wire.encode(Codec::Protobuf, &order()).unwrap();
        assert_eq!(data[..], *b"\x0a\x02o1");
        assert_eq!(wire.decode(&of(&data)).unwrap(), order());
        let framed = Frame::write(7, Some(&[1, 0]), &data);
        assert_eq!(wire.decode(&of(&framed)).unwrap(), order());
        assert_eq!(wire.decode(&of(b"")).unwrap(), Order::default());
    }

    #[test]
    fn another_message_of_the_same_file_is_refused() {
        let file = "message Order { string id = 1; } message Other {}";
        let schema = Box::leak(Box::new(DataSchema::of_message(file, "Order")));
        let wire = Wire::serde().with_protobuf(message::<Order>(Some(schema)));
        let framed = |index| Frame::write(7, Some(&[index]), b"\x0a\x02o1");
        assert_eq!(wire.decode(&of(&framed(0))).unwrap(), order());
        let error = wire.decode(&of(&framed(1))).unwrap_err();
        assert!(error.to_string().contains("message [1]"), "{error}");
    }

    #[test]
    fn what_is_no_message_says_what_to_do() {
        let error = Codec::Protobuf.encode(&7).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Encode);
        assert!(error.to_string().contains("#[event(protobuf)]"), "{error}");
        let error = Codec::decode::<u32>(&of(b"\x0a\x02o1")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        let error = to_json(&of(b"\x0a\x02o1")).unwrap_err();
        assert!(error.to_string().contains("#[event(from = ..)]"), "{error}");
    }
}
