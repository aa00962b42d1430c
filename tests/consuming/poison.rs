//! Events that can't be handled: each is put away with its reason, and the others go on.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use polybus::transport::{Outgoing, Publisher, RawRecord, Transport};
use polybus::{Bus, Event, Headers, Outcome, Payload, Permanent, State, Topic};
use serde_json::json;

use super::place::{
    Doubled, Handled, PATIENCE, Place, TRANSPORTS, Work, header, publish, subscribe,
};

/// Does what the number says, for the keys that ask for it.
async fn work(
    Payload(work): Payload<Work>,
    State(handled): State<Handled>,
) -> Result<(), polybus::BoxError> {
    match work.key.as_str() {
        "error" => Err("it failed".into()),
        "permanent" => Err(Permanent::new("it will never work").into()),
        "panic" => panic!("it panicked"),
        "hang" => std::future::pending().await,
        _ => {
            handled.note(&work);
            Ok(())
        }
    }
}

async fn send(bus: &Bus, place: &Place, outgoing: Outgoing) {
    let transport = bus.transport(place.transport).unwrap();
    let outcomes = transport
        .publisher()
        .await
        .unwrap()
        .publish(&[outgoing])
        .await;
    assert!(
        matches!(outcomes[..], [Outcome::Accepted(_)]),
        "{outcomes:?}"
    );
}

/// One of each kind, by the sign of it in its dead letter's reason.
async fn publish_poison(bus: &Bus, place: &Place) {
    let topic = || Topic::new(place.topic.clone());
    for key in ["error", "permanent", "panic", "hang"] {
        let data = json!({ "key": key, "number": 0 });
        let event = Event::builder("work.asked").key(key).json(&data).unwrap();
        bus.publish(event).await.unwrap();
    }
    let event = |data: Option<&'static [u8]>| {
        let builder = Event::builder("work.asked").source("test").key("poison");
        let builder = data.into_iter().fold(builder, polybus::EventBuilder::data);
        Outgoing::new(topic(), builder.build().unwrap())
    };
    send(bus, place, event(None)).await;
    send(bus, place, event(Some(b""))).await;
    send(bus, place, event(Some(b"\xff\xfe{"))).await;
    let junk = RawRecord::new(None, Headers::new(), Some(Bytes::from_static(b"\x00junk")));
    send(bus, place, Outgoing::raw(topic(), junk)).await;
}

/// The first one that a reason holds is its kind.
const REASONS: [&str; 8] = [
    "not an event",
    "it failed",
    "it will never work",
    "it panicked",
    "did not finish within",
    "has no data",
    "EOF while parsing",
    "expected value",
];

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_poison_is_put_away_with_its_reason_and_the_others_flow() {
    for transport in TRANSPORTS {
        let settings = "retry = { max_attempts = 3, base = '10ms', max = '20ms' }\n\
                        handler_timeout = '1s'\n";
        let place = Place::shared(transport, settings).await;
        let bus = place.bus().await;
        let handled = Handled::default();
        let subscription = subscribe(&bus, handled.clone(), work).await;
        publish(&bus, 5, 0..10).await;
        publish_poison(&bus, &place).await;
        publish(&bus, 5, 10..20).await;

        handled.wait_for(100).await;
        let letters = place.dead_letters(&bus, REASONS.len()).await;
        place.wait_until_done(&bus).await;
        handled.assert_all(5, 0..20, Doubled::Never);

        let mut attempts = BTreeMap::new();
        for letter in &letters {
            let reason = header(letter.headers(), "polybus-reason");
            let kind = REASONS.iter().find(|kind| reason.contains(**kind));
            let kind = kind.unwrap_or_else(|| panic!("an unexpected reason: {reason}"));
            attempts.insert(*kind, header(letter.headers(), "polybus-attempts"));
        }
        let tried = |count: &str| {
            let of_count = attempts.iter().filter(|(_, tried)| *tried == count);
            of_count.map(|(kind, _)| *kind).collect::<Vec<_>>()
        };
        assert_eq!(
            attempts.len(),
            REASONS.len(),
            "one of each on {transport}: {attempts:?}"
        );
        assert_eq!(
            tried("3"),
            ["did not finish within", "it failed", "it panicked"],
            "{attempts:?}"
        );
        assert_eq!(
            tried("1").len(),
            5,
            "what can't get better is tried once: {attempts:?}"
        );

        let counts = subscription.counts();
        assert_eq!(counts.dead_lettered, 8);
        assert_eq!(counts.retried, 6);
        assert_eq!(counts.undecodable, 1);
        assert_eq!(counts.handled, 100);
        assert!(subscription.status().last_error.is_some());
        place.close(bus).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_event_are_put_away_as_they_came() {
    for transport in TRANSPORTS {
        let place = Place::shared(transport, "").await;
        let bus = place.bus().await;
        subscribe(&bus, Handled::default(), work).await;
        let value = Bytes::from_static(b"\x00\xffno event\r\n");
        let mut headers = Headers::new();
        headers.push("x-origin", Some(Bytes::from_static(b"elsewhere")));
        let record = RawRecord::new(Some(Bytes::from_static(b"k")), headers, Some(value.clone()));
        send(
            &bus,
            &place,
            Outgoing::raw(Topic::new(place.topic.clone()), record),
        )
        .await;

        let letters = place.dead_letters(&bus, 1).await;
        let record = &letters[0].event().unwrap_err().record;
        assert_eq!(record.value.as_ref(), Some(&value), "on {transport}");
        assert_eq!(header(&record.headers, "x-origin"), "elsewhere");
        place.close(bus).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_others_reach_the_handler_beside_the_event() {
    async fn take(headers: Headers, Payload(work): Payload<Work>, State(handled): State<Handled>) {
        if headers
            .first("x-tenant")
            .is_some_and(|tenant| tenant == "t1")
        {
            handled.note(&work);
        }
    }
    for transport in TRANSPORTS {
        let place = Place::shared(transport, "").await;
        let bus = place.bus().await;
        let handled = Handled::default();
        subscribe(&bus, handled.clone(), take).await;
        let event = Event::builder("work.asked").source("test");
        let event = event
            .json(&json!({ "key": "k", "number": 1 }))
            .unwrap()
            .build()
            .unwrap();
        let mut headers = Headers::new();
        headers.push("x-tenant", Some(Bytes::from_static(b"t1")));
        headers.push("x-nothing", None);
        let outgoing = Outgoing::new(Topic::new(place.topic.clone()), event);
        send(&bus, &place, outgoing.with_headers(headers)).await;
        handled.wait_for(1).await;
        place.close(bus).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_the_pause_of_a_retry_and_the_next_member_has_the_event() {
    async fn fail(
        State(handled): State<Handled>,
        Payload(work): Payload<Work>,
    ) -> Result<(), String> {
        handled.note(&work);
        Err("later".to_owned())
    }
    async fn take(State(handled): State<Handled>, Payload(work): Payload<Work>) {
        handled.note(&work);
    }
    for transport in TRANSPORTS {
        let settings =
            "retry = { max_attempts = 9, base = '5m', max = '5m' }\ntakeover_after = '10m'\n";
        let place = Place::shared(transport, settings).await;
        let bus = place.bus().await;
        let failed = Handled::default();
        subscribe(&bus, failed.clone(), fail).await;
        publish(&bus, 1, 0..1).await;
        failed.wait_for(1).await;
        let report = tokio::time::timeout(PATIENCE, bus.close("60s")).await;
        let report = report
            .expect("a stop that does not wait for five minutes")
            .unwrap();
        assert_eq!(report.unfinished(), 1, "on {transport}");

        let bus = place.bus().await;
        let handled = Handled::default();
        subscribe(&bus, handled.clone(), take).await;
        handled.wait_for(1).await;
        place.wait_until_done(&bus).await;
        place.close(bus).await;
    }
}

/// A pause that a test makes because the pause itself is its subject.
pub(crate) async fn busy_for(duration: Duration) {
    tokio::time::sleep(duration).await;
}
