//! Entries as they stand on the server, and as others write them.

use crate::support::{Raw, ack, connect, publish, settle, subscription, take, topic};
use polybus_core::event::Event;
use polybus_core::transport::{Headers, Outgoing, Settlement, Transport};
use polybus_test_support::RedisServer;

#[tokio::test]
async fn an_event_stands_in_two_fields_that_anybody_can_read() {
    let server = RedisServer::shared().await;
    let (transport, raw, topic) = (connect(server).await, Raw::connect(server).await, topic());
    let event = Event::builder("deal.status.changed")
        .id("7")
        .source("deals")
        .subject("deal-1")
        .time("2026-02-03T04:05:06Z".parse().unwrap())
        .key("tenant-1")
        .extension("count", 3)
        .json(&serde_json::json!({ "status": "geschloßen" }))
        .unwrap();
    let mut headers = Headers::new();
    headers.push("origin", Some("eu".into()));
    headers.push("nothing", None);
    let outgoing = Outgoing::new(topic.clone(), event.build().unwrap()).with_headers(headers);
    publish(&transport, &[outgoing]).await;

    let entries: Vec<(String, Vec<String>)> = raw.words(&["XRANGE", topic.name(), "-", "+"]).await;
    let attributes = concat!(
        r#"{"specversion":"1.0","id":"7","source":"deals","type":"deal.status.changed","#,
        r#""subject":"deal-1","time":"2026-02-03T04:05:06Z","datacontenttype":"application/json","#,
        r#""partitionkey":"tenant-1","count":3}"#
    );
    assert_eq!(
        entries[0].1,
        [
            "ce",
            attributes,
            "data",
            r#"{"status":"geschloßen"}"#,
            "h:origin",
            "eu",
            "n:nothing",
            ""
        ]
    );
}

const GOOD: &str = r#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#;

/// Entries of every format, and some of none.
const MIXED: &[&[&str]] = &[
    &["ce", GOOD, "data", "1"],
    &["ce", "{", "data", "2"],
    &["", ""],
    &[
        "ce_specversion",
        "1.0",
        "ce_id",
        "1",
        "ce_source",
        "s",
        "ce_type",
        "t",
        "data",
        "4",
    ],
    &["ce_specversion", "0.3", "data", "5"],
    &[
        "data",
        r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":6}"#,
    ],
    &["data", "7"],
    &["ce", GOOD, "data", "8"],
];

#[tokio::test]
async fn a_bad_entry_keeps_no_other_from_being_delivered() {
    let server = RedisServer::shared().await;
    let (transport, raw, topic) = (connect(server).await, Raw::connect(server).await, topic());
    let mut ids: Vec<String> = Vec::new();
    for fields in MIXED {
        let mut words = vec!["XADD", topic.name(), "*"];
        words.extend(*fields);
        ids.push(raw.words(&words).await);
    }
    let mut subscriber = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    let deliveries = take(&mut subscriber, 8).await;
    let data: Vec<Option<&[u8]>> = deliveries
        .iter()
        .map(|delivery| Some(&delivery.event().ok()?.data()?[..]))
        .collect();
    let expected = [
        Some(&b"1"[..]),
        None,
        None,
        Some(b"4"),
        None,
        Some(b"6"),
        None,
        Some(b"8"),
    ];
    assert_eq!(data, expected);
    for (delivery, id) in deliveries.iter().zip(&ids) {
        let position = delivery.position();
        let sequence = position.sequence().unwrap();
        assert_eq!(&format!("{}-{sequence}", position.offset()), id);
        if let Err(undecodable) = delivery.event() {
            let error = undecodable.error();
            assert_eq!(error.topic(), Some(topic.name()));
            assert_eq!(error.transport(), Some("redis-streams"));
        }
    }
    let record = &deliveries[1].event().unwrap_err().record;
    assert_eq!(record.headers.first("ce").unwrap(), "{");
    assert_eq!(record.value.as_ref().unwrap(), "2");
    // What can't be read can be settled like the rest.
    assert!(
        ack(&subscriber, &deliveries)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(raw.pending(&topic, "g", None).await, 0);
}

#[tokio::test]
async fn a_dead_letter_keeps_the_entry_as_it_came() {
    let server = RedisServer::shared().await;
    let (transport, raw) = (connect(server).await, Raw::connect(server).await);
    let (origin, letters) = (topic(), topic());
    let fields = [
        "ce", "{", "data", "\u{1}x", "h:trace", "t", "n:null", "", "other", "o",
    ];
    let mut words = vec!["XADD", origin.name(), "*"];
    words.extend(fields);
    let _: String = raw.words(&words).await;
    let mut subscriber = transport
        .subscribe(subscription("g", &origin))
        .await
        .unwrap();
    let delivery = take(&mut subscriber, 1).await.remove(0);
    let record = delivery.event().unwrap_err().record.clone();
    let mut reason = Headers::new();
    reason.push("reason", Some("broken".into()));
    publish(
        &transport,
        &[Outgoing::raw(letters.clone(), record).with_headers(reason)],
    )
    .await;
    settle(&subscriber, &[delivery], Settlement::Ack).await;

    let entries: Vec<(String, Vec<String>)> =
        raw.words(&["XRANGE", letters.name(), "-", "+"]).await;
    let mut kept: Vec<(&str, &str)> = entries[0]
        .1
        .chunks(2)
        .map(|pair| (pair[0].as_str(), pair[1].as_str()))
        .collect();
    kept.sort_unstable();
    let mut expected: Vec<(&str, &str)> = fields.chunks(2).map(|pair| (pair[0], pair[1])).collect();
    expected.push(("reason", "broken"));
    expected.sort_unstable();
    assert_eq!(kept, expected);
}
