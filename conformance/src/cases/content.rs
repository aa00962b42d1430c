//! What goes in comes out: attributes, headers, data.

use std::collections::BTreeMap;
use std::slice::from_ref;

use bytes::Bytes;
use polybus_core::transport::{Delivery, Headers, Outgoing};
use polybus_core::{Event, EventBuilder, ExtensionValue, Timestamp};

use super::case;
use crate::case::Case;
use crate::failure::{Check, ensure};
use crate::member::event_of;
use crate::scene::Scene;

pub(super) const CASES: &[Case] = &[
    case!(
        attributes_and_extensions_survive,
        "Every attribute and extension of an event comes back as it was."
    ),
    case!(
        nothing_is_made_up,
        "An event without optional attributes comes back without them; a subject does not become a partition key."
    ),
    case!(
        headers_survive,
        "Headers beside the event come back in their order: repeated names, empty and binary values."
    ),
    case!(
        non_ascii_survives,
        "Attributes, keys and extension values in any script come back as they were."
    ),
    case!(
        long_keys_survive,
        "Keys of up to 4 KiB come back as they were and keep their events apart."
    ),
    case!(
        any_bytes_survive,
        "Data of random bytes and sizes, all 256 values among them, comes back as it was."
    ),
    case!(
        no_data_is_not_empty_data,
        "An event without data (a tombstone) and one with empty data stay two things."
    ),
    case!(
        one_mebibyte_payloads,
        "Events with 1 MiB of data arrive whole, also several in one batch."
    ),
];

fn plain(event_type: &str) -> EventBuilder {
    Event::builder(event_type)
        .source("polybus-conformance")
        .without_time()
}

/// Publishes events in one batch and returns them as they came, in the same order.
async fn round_trip(scene: &Scene, batch: &[Outgoing]) -> Check<Vec<Delivery>> {
    let topic = &batch[0].topic;
    let client = scene.connect().await?;
    client.sender().await?.send(batch).await?;
    let mut member = client.join(&scene.name(), from_ref(topic)).await?;
    let mut deliveries = member.take(batch.len()).await?;
    member.ack(&deliveries).await?;
    member.close().await?;
    let mut place = BTreeMap::new();
    for (index, outgoing) in batch.iter().enumerate() {
        place.insert(outgoing.event().map(Event::id), index);
    }
    for delivery in &deliveries {
        let id = event_of(delivery)?.id();
        ensure!(
            place.contains_key(&Some(id)),
            "an event came with the id `{id}`, which was not published"
        );
    }
    deliveries.sort_by_key(|delivery| place.get(&delivery.event().ok().map(Event::id)).copied());
    Ok(deliveries)
}

/// Publishes events and compares them with what comes.
async fn ensure_they_survive(scene: &Scene, events: &[Event]) -> Check {
    let topic = scene.topic().await?;
    let batch: Vec<_> = events
        .iter()
        .map(|event| Outgoing::new(topic.clone(), event.clone()))
        .collect();
    let deliveries = round_trip(scene, &batch).await?;
    for (sent, delivery) in events.iter().zip(&deliveries) {
        ensure_same(sent, event_of(delivery)?)?;
        ensure!(
            delivery.key() == sent.key(),
            "the key {:?} came back as {:?}",
            sent.key(),
            delivery.key()
        );
    }
    Ok(())
}

fn ensure_same(sent: &Event, came: &Event) -> Check {
    let attributes = |event: &Event| {
        let mut attributes = BTreeMap::new();
        attributes.insert("id".to_owned(), Some(event.id().to_owned()));
        let mut put = |name: &str, value: Option<&str>| {
            attributes.insert(name.to_owned(), value.map(str::to_owned));
        };
        put("source", Some(event.source()));
        put("type", Some(event.event_type()));
        put("subject", event.subject());
        put("datacontenttype", event.content_type());
        put("dataschema", event.schema());
        put("time", event.time().map(|time| time.to_string()).as_deref());
        // An integer or a boolean that travelled as text comes back as the text of it.
        for (name, value) in event.extensions() {
            put(name, Some(&value.to_string()));
        }
        attributes
    };
    let (sent_attributes, came_attributes) = (attributes(sent), attributes(came));
    for (name, value) in &sent_attributes {
        let other = came_attributes.get(name).cloned().flatten();
        ensure!(
            *value == other,
            "attribute `{name}` was {value:?} and came back as {other:?}"
        );
    }
    let added = came_attributes
        .iter()
        .find(|(name, value)| value.is_some() && !sent_attributes.contains_key(*name));
    ensure!(added.is_none(), "an attribute was made up: {added:?}");
    ensure!(
        sent.data() == came.data(),
        "the data of `{}` changed: {:?} bytes were sent, {:?} came",
        sent.id(),
        sent.data().map(Bytes::len),
        came.data().map(Bytes::len)
    );
    Ok(())
}

async fn attributes_and_extensions_survive(scene: Scene) -> Check {
    let time: Timestamp = "2026-02-03T04:05:06.789012345Z".parse()?;
    let event = Event::builder("conformance.attributes.all")
        .id("an id / with: all = sorts & of % signs\"'")
        .source("https://example.org/a?b=c#d")
        .subject("order/7")
        .time(time)
        .content_type("application/vnd.example+json; charset=utf-8")
        .schema("https://example.org/schemas/1")
        .key("deal-123")
        .data_version("2.1.0")
        .correlation("correlation-1")
        .causation("cause-1")
        .extension(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .extension("tracestate", "vendor=a%20b,other=1")
        .extension("text", ExtensionValue::from(" spaces around \t and a tab "))
        .extension("flag", true)
        .extension("number", i32::MIN)
        .data(r#"{"a":1}"#)
        .build()?;
    let whole_second: Timestamp = "2026-02-03T04:05:06Z".parse()?;
    let later = plain("conformance.second").time(whole_second).build()?;
    ensure_they_survive(&scene, &[event, later]).await
}

async fn nothing_is_made_up(scene: Scene) -> Check {
    let bare = plain("conformance.bare").build()?;
    let with_subject = plain("conformance.bare").subject("a subject").build()?;
    let with_data = plain("conformance.bare").data("text").build()?;
    ensure_they_survive(&scene, &[bare, with_subject, with_data]).await
}

async fn headers_survive(scene: Scene) -> Check {
    const PREFIX: &str = "conformance-";
    let mut headers = Headers::new();
    for (name, value) in [
        ("conformance-text", Bytes::from_static(b"text")),
        ("conformance-twice", Bytes::from_static(b"first")),
        ("conformance-empty", Bytes::new()),
        ("conformance-twice", Bytes::from_static(b"second")),
        (
            "conformance-binary",
            Bytes::from((0..=255).collect::<Vec<u8>>()),
        ),
    ] {
        headers.push(name, Some(value));
    }
    let topic = scene.topic().await?;
    let event = plain("conformance.headers").data("{}").build()?;
    let outgoing = Outgoing::new(topic, event.clone()).with_headers(headers.clone());
    let deliveries = round_trip(&scene, &[outgoing]).await?;
    ensure_same(&event, event_of(&deliveries[0])?)?;
    // A transport may add headers of its own.
    let came = deliveries[0].headers().iter();
    let came: Vec<_> = came.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    let sent: Vec<_> = headers.iter().collect();
    ensure!(came == sent, "the headers {sent:?} came back as {came:?}");
    Ok(())
}

async fn non_ascii_survives(scene: Scene) -> Check {
    let texts = [
        "Grüße aus Köln",
        "日本語のキー",
        "مفتاح",
        "🦀 e\u{301} \u{200d}",
        "100 % \"quoted\" \\ back",
    ];
    let mut events = Vec::new();
    for text in texts {
        let event = plain("conformance.script")
            .source(format!("source/{text}"))
            .subject(text)
            .key(text)
            .extension("note", text)
            .data(text);
        events.push(event.build()?);
    }
    ensure_they_survive(&scene, &events).await
}

async fn long_keys_survive(scene: Scene) -> Check {
    let mut events = Vec::new();
    for length in [1, 22, 23, 24, 255, 256, 4096] {
        for last in ["a", "b"] {
            let key = format!("{}{last}", "k".repeat(length - 1));
            events.push(plain("conformance.key").key(key).build()?);
        }
    }
    ensure_they_survive(&scene, &events).await
}

async fn any_bytes_survive(scene: Scene) -> Check {
    let mut events = Vec::new();
    let all: Vec<u8> = (0..=255).collect();
    events.push(plain("conformance.bytes").data(all).build()?);
    for _ in 0..40 {
        let length = scene.random().below(16 * 1024);
        let data = scene.random().bytes(length);
        events.push(plain("conformance.bytes").data(data).build()?);
    }
    ensure_they_survive(&scene, &events).await
}

async fn no_data_is_not_empty_data(scene: Scene) -> Check {
    let none = plain("conformance.data").key("k").build()?;
    let empty = plain("conformance.data").key("k").data("").build()?;
    let typed = plain("conformance.data")
        .content_type("text/plain")
        .build()?;
    ensure_they_survive(&scene, &[none, empty, typed]).await
}

async fn one_mebibyte_payloads(scene: Scene) -> Check {
    const MEBIBYTE: usize = 1 << 20;
    let mut events = Vec::new();
    for _ in 0..3 {
        // Random, so that no compression makes it small.
        let data = scene.random().bytes(MEBIBYTE);
        events.push(plain("conformance.large").data(data).build()?);
    }
    ensure_they_survive(&scene, &events).await
}
