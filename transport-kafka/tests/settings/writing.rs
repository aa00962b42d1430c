//! What stands on the server, as the settings have it.

use std::path::Path;

use bytes::Bytes;
use polybus_core::transport::{Headers, Outgoing, Publisher, Transport};
use polybus_core::{Event, Topic};
use polybus_kafka::{Acks, Compression, Format, KafkaTransport};
use polybus_test_support::{KafkaOptions, KafkaServer, unique_name};
use rdkafka::message::Message;

use crate::common::*;

/// The codec of the first batch in a segment: the lowest three bits of the batch's attributes, which
/// stand behind base offset (8 bytes), length (4), leader epoch (4), magic (1) and checksum (4).
fn codec(directory: &Path, topic: &Topic) -> u8 {
    let partition = format!("data/{}-0/00000000000000000000.log", topic.name());
    let segment = std::fs::read(directory.join(partition)).unwrap();
    assert_eq!(segment[16], 2, "the batch format that is known here");
    segment[22] & 0b111
}

#[tokio::test(flavor = "multi_thread")]
async fn records_stand_compressed_as_the_setting_says() {
    let server = KafkaOptions::new().start().await.unwrap();
    let directory = server.directory().unwrap();
    for (compression, number) in [
        (Compression::None, 0),
        (Compression::Gzip, 1),
        (Compression::Snappy, 2),
        (Compression::Lz4, 3),
        (Compression::Zstd, 4),
    ] {
        let mut config = config(&server);
        config.compression = compression;
        let kafka = KafkaTransport::connect(config).await.unwrap();
        let topic = topic(&kafka, 1).await;
        let publisher = kafka.publisher().await.unwrap();
        // What does not get smaller is sent as it is.
        let batch: Vec<Outgoing> = (0..50)
            .map(|number| {
                let event = Event::builder("a").source("s").id(number.to_string());
                let event = event.key("k").data(vec![b'x'; 500]).build().unwrap();
                Outgoing::new(topic.clone(), event)
            })
            .collect();
        publish_all(&publisher, &batch).await;
        assert_eq!(codec(&directory, &topic), number, "{compression:?}");
        let mut member = join(&kafka, &unique_name("group"), &topic).await;
        let mut counts = Counts::default();
        handle(&mut member, &mut counts, 50).await;
        assert_eq!(counts.wrong(50), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_event_stands_there_as_key_and_data_alone() {
    let server = KafkaServer::shared().await;
    let mut config = config(server);
    config.format = Format::Plain;
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, 1).await;
    let publisher = kafka.publisher().await.unwrap();
    let event = || {
        Event::builder("deal.closed")
            .source("s")
            .subject("not written")
    };
    let mut hop = Headers::new();
    hop.push("traceparent", Some(Bytes::from_static(b"00-1-2-01")));
    let full = event()
        .key("deal-1")
        .data(r#"{"price":7}"#)
        .build()
        .unwrap();
    let batch = [
        Outgoing::new(topic.clone(), full).with_headers(hop),
        Outgoing::new(topic.clone(), event().data("").build().unwrap()),
        Outgoing::new(topic.clone(), event().key("deal-1").build().unwrap()),
    ];
    publish_all(&publisher, &batch).await;

    let records = bare_records(&bare_reader(server, &topic, 0), 3);
    let text =
        |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let seen = records
        .iter()
        .map(|it| (text(it.key()), text(it.payload())));
    let expected = [
        (Some("deal-1"), Some(r#"{"price":7}"#)),
        // The key of an event without a partition key is its subject.
        (Some("not written"), Some("")),
        (Some("deal-1"), None),
    ];
    let expected = expected.map(|(key, value)| (key.map(Into::into), value.map(Into::into)));
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    assert!(records.iter().all(|record| record.headers().is_none()));
}

/// Each transport reads both, whatever it writes: the record says what it is.
#[tokio::test(flavor = "multi_thread")]
async fn either_format_is_read_whatever_the_setting_says() {
    let server = KafkaServer::shared().await;
    let mut plain = config(server);
    plain.format = Format::Plain;
    let plain = KafkaTransport::connect(plain).await.unwrap();
    let other = connect(server).await;
    let topic = topic(&other, 1).await;
    for kafka in [&plain, &other] {
        let publisher = kafka.publisher().await.unwrap();
        publish_all(&publisher, &numbered(&topic, 7..8, 1)).await;
        publisher.close(deadline()).await.unwrap();
    }
    for kafka in [&plain, &other] {
        let mut member = join(kafka, &unique_name("group"), &topic).await;
        let mut deliveries = Vec::new();
        while deliveries.len() < 2 {
            deliveries.extend(recv(&mut member, 10).await);
        }
        let record = &deliveries[0].event().unwrap_err().record;
        assert_eq!(record.key.as_deref(), Some(&b"key-0"[..]));
        assert_eq!(record.value.as_deref(), Some(&b"7"[..]));
        assert_eq!(record.headers.len(), 0);
        assert_eq!(deliveries[1].event().unwrap().id(), "7");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_accepted_at_each_level_of_acks() {
    let server = KafkaServer::shared().await;
    for (acks, offsets) in [
        (Acks::All, [0, 1]),
        (Acks::Leader, [0, 1]),
        // Nobody tells.
        (Acks::None, [u64::MAX, u64::MAX]),
    ] {
        let mut config = config(server);
        config.acks = acks;
        let kafka = KafkaTransport::connect(config).await.unwrap();
        let topic = topic(&kafka, 1).await;
        let publisher = kafka.publisher().await.unwrap();
        let outcomes = publisher.publish(&numbered(&topic, 0..2, 1)).await;
        let positions = outcomes
            .into_iter()
            .map(|it| it.into_result().unwrap().offset());
        assert_eq!(positions.collect::<Vec<_>>(), offsets, "{acks:?}");
        let records = bare_records(&bare_reader(server, &topic, 0), 2);
        assert_eq!(records[1].payload(), Some(&b"1"[..]));
    }
}
