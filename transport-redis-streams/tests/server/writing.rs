//! Formats and trimming as the settings say.

use std::collections::HashMap;
use std::time::Duration;

use polybus_core::transport::{Headers, Losses, Outgoing, RawRecord, Transport};
use polybus_core::{Event, Topic};
use polybus_redis_streams::{Format, Trim};
use polybus_test_support::RedisServer;

use crate::support::{
    Raw, ack, close, connect, connect_with, event, events, ids, numbered_ids, publish,
    subscription, take, topic,
};

async fn length(raw: &Raw, topic: &Topic) -> usize {
    raw.words(&["XLEN", topic.name()]).await
}

#[tokio::test]
async fn a_stream_is_trimmed_to_about_its_length_and_never_below() {
    let server = RedisServer::shared().await;
    let (raw, topic) = (Raw::connect(server).await, topic());
    let transport = connect_with(server, |config| config.trim = Some(Trim::MaxLen(250))).await;
    publish(&transport, &events(&topic, 0..200)).await;
    assert_eq!(length(&raw, &topic).await, 200);
    publish(&transport, &events(&topic, 200..2_000)).await;
    // A node of the server has 100 entries.
    let kept = length(&raw, &topic).await;
    assert!((250..=350).contains(&kept), "{kept} are kept");
    let mut subscriber = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    let taken = take(&mut subscriber, kept).await;
    assert_eq!(ids(&taken), numbered_ids(2_000 - kept..2_000));
    close(subscriber).await;
}

#[tokio::test]
async fn a_stream_is_trimmed_by_id_and_by_age() {
    let server = RedisServer::shared().await;
    let raw = Raw::connect(server).await;
    // Two nodes from 1970.
    let old = |topic: Topic| {
        let raw = &raw;
        async move {
            for number in 1..=200 {
                let id = number.to_string();
                let _: String = raw.words(&["XADD", topic.name(), &id, "data", "x"]).await;
            }
            topic
        }
    };
    for (trim, kept) in [
        (Trim::MinAge(Duration::from_secs(3600)), 1),
        (Trim::MinAge(Duration::from_secs(365 * 24 * 3600)), 1),
        (Trim::MinId("101".to_owned()), 101),
        (Trim::MinId("101-0".to_owned()), 101),
        // No whole node is below it.
        (Trim::MinId("50".to_owned()), 201),
    ] {
        let topic = old(topic()).await;
        let setting = Some(trim.clone());
        let transport = connect_with(server, |config| config.trim = setting).await;
        publish(&transport, &events(&topic, 0..1)).await;
        assert_eq!(length(&raw, &topic).await, kept, "{trim:?}");
    }
}

#[tokio::test]
async fn what_is_trimmed_while_it_is_pending_is_counted() {
    let server = RedisServer::shared().await;
    let (raw, topic) = (Raw::connect(server).await, topic());
    let transport = connect_with(server, |config| config.trim = Some(Trim::MaxLen(100))).await;
    publish(&transport, &events(&topic, 0..100)).await;
    let losses = Losses::default();
    let named = || subscription("g", &topic).member("m").losses(&losses);
    let mut subscriber = transport.subscribe(named()).await.unwrap();
    assert_eq!(take(&mut subscriber, 100).await.len(), 100);
    drop(subscriber);
    publish(&transport, &events(&topic, 100..300)).await;
    let kept = length(&raw, &topic).await;
    let mut subscriber = transport.subscribe(named()).await.unwrap();
    let taken = take(&mut subscriber, kept).await;
    assert_eq!(ids(&taken), numbered_ids(300 - kept..300));
    assert_eq!(losses.count(), 100);
    assert!(ack(&subscriber, &taken).await.iter().all(Result::is_ok));
    close(subscriber).await;
}

#[tokio::test]
async fn every_format_is_written_as_set_and_read_by_every_transport() {
    let server = RedisServer::shared().await;
    let (raw, reader) = (Raw::connect(server).await, connect(server).await);
    let mut headers = Headers::new();
    headers.push("origin", Some("eu".into()));
    for (format, names) in [
        (Format::Default, &["ce", "data", "h:origin"][..]),
        (
            Format::Fields,
            &[
                "ce_id",
                "ce_partitionkey",
                "ce_source",
                "ce_specversion",
                "ce_time",
                "ce_type",
                "data",
                "h:origin",
            ],
        ),
        (Format::Plain, &["data", "k:"]),
    ] {
        let topic = topic();
        let writer = connect_with(server, |config| config.format = format).await;
        let sent: Event = event(1);
        let outgoing = Outgoing::new(topic.clone(), sent.clone()).with_headers(headers.clone());
        publish(&writer, &[outgoing]).await;
        let entries: Vec<(String, HashMap<String, String>)> =
            raw.words(&["XRANGE", topic.name(), "-", "+"]).await;
        let mut written: Vec<&str> = entries[0].1.keys().map(String::as_str).collect();
        written.sort_unstable();
        assert_eq!(written, names, "{format:?}");

        let mut subscriber = reader.subscribe(subscription("g", &topic)).await.unwrap();
        let delivery = take(&mut subscriber, 1).await.remove(0);
        if format == Format::Plain {
            let (key, data) = (Some("key".into()), sent.data().cloned());
            let record = RawRecord::new(key, Headers::new(), data);
            assert_eq!(delivery.event().unwrap_err().record, record);
        } else {
            assert_eq!(delivery.event().unwrap(), &sent);
            assert_eq!(delivery.headers(), &headers);
        }
        close(subscriber).await;
    }
}
