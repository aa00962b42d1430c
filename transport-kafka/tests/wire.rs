//! What stands on the topic, read and written by the bare client.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use polybus_core::transport::{
    Headers, Outcome, Outgoing, Publisher, RawRecord, Settlement, Settler, Subscriber, Transport,
};
use polybus_core::{ErrorKind, Event, Topic};
use polybus_test_support::{KafkaServer, unique_name};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, Headers as _, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

type BareHeaders = Vec<(String, Option<Vec<u8>>)>;

/// Key, headers and value.
type BareRecord<'a> = (Option<&'a [u8]>, BareHeaders, Option<&'a [u8]>);

fn headers_of(message: &impl Message) -> BareHeaders {
    let headers = message.headers().unwrap();
    headers
        .iter()
        .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
        .collect()
}

fn text(name: &str, value: &str) -> (String, Option<Vec<u8>>) {
    (name.to_owned(), Some(value.as_bytes().to_vec()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stands_there_in_binary_mode() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let topic = topic(&kafka, 1).await;
    let publisher = kafka.publisher().await.unwrap();
    let event = Event::builder("deal.closed")
        .id("7")
        .source("deal-monitor")
        .subject("deal-123")
        .key("tenant-1")
        .time("2026-11-21T08:30:00.5Z".parse().unwrap())
        .schema("https://example.com/deal")
        .data_version("1.2.0")
        .extension("count", 7)
        .json(&serde_json::json!({ "price": 7 }))
        .unwrap()
        .build()
        .unwrap();
    let mut hop = Headers::new();
    hop.push("traceparent", Some(Bytes::from_static(b"00-1-2-01")));
    hop.push("nothing", None);
    publish_all(
        &publisher,
        &[Outgoing::new(topic.clone(), event).with_headers(hop)],
    )
    .await;

    let record = bare_records(&bare_reader(server, &topic, 0), 1).remove(0);
    assert_eq!(record.key(), Some(&b"tenant-1"[..]));
    assert_eq!(record.payload(), Some(&br#"{"price":7}"#[..]));
    let mut headers = headers_of(&record);
    assert_eq!(
        headers.split_off(headers.len() - 2),
        [
            text("traceparent", "00-1-2-01"),
            ("nothing".to_owned(), None)
        ],
        "the headers of the hop stand behind the event's"
    );
    headers.sort();
    assert_eq!(
        headers,
        [
            text("ce_count", "7"),
            text("ce_dataschema", "https://example.com/deal"),
            text("ce_dataversion", "1.2.0"),
            text("ce_id", "7"),
            text("ce_source", "deal-monitor"),
            text("ce_specversion", "1.0"),
            text("ce_subject", "deal-123"),
            text("ce_time", "2026-11-21T08:30:00.5Z"),
            text("ce_type", "deal.closed"),
            text("content-type", "application/json"),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_data_is_a_tombstone_and_empty_data_is_not() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let topic = topic(&kafka, 1).await;
    let publisher = kafka.publisher().await.unwrap();
    let event = || Event::builder("a").source("s").key("k");
    let events = [event().build(), event().data("").build()];
    let batch = events.map(|event| Outgoing::new(topic.clone(), event.unwrap()));
    publish_all(&publisher, &batch).await;

    let records = bare_records(&bare_reader(server, &topic, 0), 2);
    assert_eq!(records[0].payload(), None);
    assert_eq!(records[1].payload(), Some(&b""[..]));
    let mut subscriber = join(&kafka, &unique_name("group"), &topic).await;
    let mut data = Vec::new();
    while data.len() < 2 {
        let deliveries = recv(&mut subscriber, 10).await;
        data.extend(
            deliveries
                .iter()
                .map(|delivery| delivery.event().unwrap().data().cloned()),
        );
    }
    assert_eq!(data, [None, Some(Bytes::new())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_record_is_sent_as_it_is() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let topic = topic(&kafka, 1).await;
    let publisher = kafka.publisher().await.unwrap();
    let mut own = Headers::new();
    own.push("x", Some(Bytes::from_static(&[0xff, 0x00])));
    own.push("x", Some(Bytes::new()));
    own.push("null", None);
    let raw = RawRecord::new(
        Some(Bytes::from_static(&[0xfe])),
        own,
        Some(Bytes::from_static(&[0xfd])),
    );
    let empty = RawRecord::default();
    let mut hop = Headers::new();
    hop.push("reason", Some(Bytes::from_static(b"poison")));
    let batch = [
        Outgoing::raw(topic.clone(), raw).with_headers(hop),
        Outgoing::raw(topic.clone(), empty),
    ];
    publish_all(&publisher, &batch).await;

    let records = bare_records(&bare_reader(server, &topic, 0), 2);
    let first = &records[0];
    assert_eq!(first.key(), Some(&[0xfe][..]));
    assert_eq!(first.payload(), Some(&[0xfd][..]));
    assert_eq!(
        headers_of(first),
        [
            ("x".to_owned(), Some(vec![0xff, 0x00])),
            ("x".to_owned(), Some(vec![])),
            ("null".to_owned(), None),
            text("reason", "poison"),
        ]
    );
    assert_eq!((records[1].key(), records[1].payload()), (None, None));
}

/// Writes records with the bare client, in their order.
fn write(server: &KafkaServer, topic: &Topic, records: &[BareRecord<'_>]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", server.brokers())
        .create()
        .unwrap();
    for (key, headers, value) in records {
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| {
                all.insert(Header {
                    key,
                    value: value.as_deref(),
                })
            });
        let mut record = BaseRecord::to(topic.name()).headers(headers);
        record.key = *key;
        record.payload = *value;
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

fn minimal(id: &str) -> BareHeaders {
    vec![
        text("CE_specversion", "1.0"),
        text("Ce_Id", id),
        text("ce_source", "elsewhere"),
        text("ce_type", "foreign"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_others_are_read() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let topic = topic(&kafka, 1).await;
    let mut with_null = minimal("null-headers");
    with_null.push(("ce_subject".to_owned(), None));
    with_null.push(("trace".to_owned(), None));
    let mut with_subject = minimal("subject-key");
    with_subject.push(text("ce_subject", "s-1"));
    let structured = vec![text(
        "Content-Type",
        "application/cloudevents+json; charset=utf-8",
    )];
    let json = br#"{"specversion":"1.0","id":"json","source":"elsewhere","type":"foreign","data":{"a":1}}"#;
    write(
        server,
        &topic,
        &[
            (Some(b"k-1"), minimal("plain"), Some(b"x")),
            (None, with_null, None),
            (Some(b"s-1"), with_subject, Some(b"")),
            (Some(b"k-2"), structured, Some(json)),
        ],
    );
    let mut subscriber = join(&kafka, &unique_name("group"), &topic).await;
    let mut deliveries = Vec::new();
    while deliveries.len() < 4 {
        deliveries.extend(recv(&mut subscriber, 10).await);
    }
    let events: Vec<&Event> = deliveries.iter().map(|d| d.event().unwrap()).collect();
    let seen: Vec<_> = events
        .iter()
        .map(|e| (e.id(), e.key(), e.partition_key(), e.data().map(Bytes::len)))
        .collect();
    assert_eq!(
        seen,
        [
            ("plain", Some("k-1"), Some("k-1"), Some(1)),
            ("null-headers", None, None, None),
            ("subject-key", Some("s-1"), None, Some(0)),
            ("json", Some("k-2"), Some("k-2"), Some(7)),
        ]
    );
    let kept: Vec<_> = deliveries[1].headers().iter().collect();
    assert_eq!(kept, [("ce_subject", None), ("trace", None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_keeps_its_bytes_and_holds_up_nothing() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let topic = topic(&kafka, 1).await;
    let mut bad_value = minimal("bad-time");
    bad_value.push(text("ce_time", "yesterday"));
    let batch_mode = vec![text("content-type", "application/cloudevents-batch+json")];
    let broken = vec![text("content-type", "application/cloudevents+json")];
    let records: [BareRecord<'_>; 6] = [
        (Some(b"k"), vec![], Some(b"\xff\xfe")),
        (Some(b"\xff\x00"), minimal("bad-key"), Some(b"data")),
        (None, bad_value, None),
        (None, batch_mode, Some(b"[]")),
        (None, broken, Some(b"{")),
        (None, minimal("good"), Some(b"data")),
    ];
    write(server, &topic, &records);
    let group = unique_name("group");
    let mut subscriber = join(&kafka, &group, &topic).await;
    let mut deliveries = Vec::new();
    while deliveries.len() < records.len() {
        deliveries.extend(recv(&mut subscriber, 10).await);
    }
    let reasons = ["no header", "key", "yesterday", "batch", "JSON"];
    for ((delivery, (key, headers, value)), reason) in deliveries.iter().zip(&records).zip(reasons)
    {
        let undecodable = delivery.event().unwrap_err();
        assert_eq!(undecodable.error().kind(), ErrorKind::Decode);
        let why = undecodable.error().to_string();
        assert!(why.contains(reason) && why.contains(topic.name()), "{why}");
        let record = &undecodable.record;
        assert_eq!(record.key.as_deref(), *key);
        assert_eq!(record.value.as_deref(), *value);
        let kept: BareHeaders = record
            .headers
            .iter()
            .map(|(name, value)| (name.to_owned(), value.map(|value| value.to_vec())))
            .collect();
        assert_eq!(kept, *headers);
    }
    assert_eq!(deliveries[5].event().unwrap().id(), "good");
    let acks: Vec<_> = deliveries
        .iter()
        .map(|d| (d.token(), Settlement::Ack))
        .collect();
    for result in subscriber.settler().settle(&acks).await {
        result.unwrap();
    }
    subscriber.close(deadline()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_key_are_in_the_partition_that_java_clients_choose() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let topic = topic(&kafka, 4).await;
    let publisher = kafka.publisher().await.unwrap();
    let batch = numbered(&topic, 0..40, 40);
    let outcomes = publisher.publish(&batch).await;
    for (outgoing, outcome) in batch.iter().zip(outcomes) {
        let key = outgoing.event().unwrap().key().unwrap();
        let position = outcome.into_result().unwrap();
        let hash = murmur2(key.as_bytes()) & 0x7fff_ffff;
        assert_eq!(position.partition(), hash % 4, "key {key}");
    }
    publisher.close(deadline()).await.unwrap();
}

/// The hash of Kafka's own producer.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap();
    let mut hash = 0x9747_b28c ^ length;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_record_is_judged_by_the_broker() {
    let server = KafkaServer::shared().await;
    let mut config = config(server);
    config.delivery_deadline = Duration::from_secs(50);
    let kafka = polybus_kafka::KafkaTransport::connect(config)
        .await
        .unwrap();
    let topic = topic(&kafka, 1).await;
    let publisher = kafka.publisher().await.unwrap();
    let of = |bytes: usize| {
        let event = Event::builder("a").source("s").data(vec![7; bytes]).build();
        Outgoing::new(topic.clone(), event.unwrap())
    };
    let outcomes = publisher.publish(&[of(4 << 20), of(9 << 20), of(1)]).await;
    let results: Vec<_> = outcomes.into_iter().map(Outcome::into_result).collect();
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(error.effect(), polybus_core::Effect::NotApplied);
    assert_eq!(error.topic(), Some(topic.name()));
}

/// The client's wrapper panics over such a record; the subscriber must not.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_name_that_is_not_utf8_takes_nobody_down() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let topic = topic(&kafka, 1).await;
    let publisher = kafka.publisher().await.unwrap();
    publish_all(&publisher, &numbered(&topic, 0..1, 1)).await;
    common::raw::store(
        server.brokers(),
        topic.name(),
        (b"\xff\xfe", b"x"),
        b"poison",
    );
    publish_all(&publisher, &numbered(&topic, 1..2, 1)).await;
    let mut subscriber = join(&kafka, &unique_name("group"), &topic).await;
    let mut deliveries = Vec::new();
    while deliveries.len() < 3 {
        deliveries.extend(recv(&mut subscriber, 10).await);
    }
    assert_eq!(deliveries[0].event().unwrap().id(), "0");
    let undecodable = deliveries[1].event().unwrap_err();
    assert!(undecodable.error().to_string().contains("header"));
    assert_eq!(undecodable.record.value.as_deref(), Some(&b"poison"[..]));
    let headers: Vec<_> = undecodable.record.headers.iter().collect();
    let name = "\u{fffd}\u{fffd}";
    assert_eq!(headers, [(name, Some(&Bytes::from_static(b"x")))]);
    assert_eq!(deliveries[2].event().unwrap().id(), "1");
}
