//! Routes that join an existing system, on memory.

use std::sync::{Arc, Mutex};

use polybus::format::{Format, Place};
use polybus::transport::{Outgoing, Publisher, RawRecord, Transport};
use polybus::{
    Bus, Config, ErrorKind, Event, Headers, Outcome, Payload, RawEvent, Result, State, TestBus,
    Topic,
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(type = "policy.created", version = "1.0.0", key = number)]
struct PolicyCreated {
    number: String,
}

fn config(format: &str) -> Config {
    let text = format!(
        "service.name = 'policies'\n[transports.t]\nkind = 'memory'\n\
         [[routes]]\npattern = 'policy.created'\ntransport = 't'\ntopic = 'policies'\nformat = '{format}'\n\
         [subscriptions.s]\nretry = {{ max_attempts = 1 }}\n"
    );
    Config::parse(&text, "polybus.toml").unwrap()
}

async fn bus(format: &str) -> TestBus {
    TestBus::on(Bus::builder().config(config(format)))
        .await
        .unwrap()
}

/// Publishes a record as another program would.
async fn write(bus: &Bus, value: &'static str) {
    let record = RawRecord::new(None, Headers::new(), Some(value.into()));
    let outgoing = Outgoing::raw(Topic::new("policies"), record);
    let publisher = bus.transport("t").unwrap().publisher().await.unwrap();
    let outcomes = publisher.publish(&[outgoing]).await;
    assert!(
        matches!(outcomes[..], [Outcome::Accepted(_)]),
        "{outcomes:?}"
    );
}

type Seen = Arc<Mutex<Vec<Event>>>;

async fn see(RawEvent(event): RawEvent, State(seen): State<Seen>) {
    seen.lock().unwrap().push(event);
}

#[tokio::test(start_paused = true)]
async fn typed_events_go_through_every_format() {
    for format in [
        "structured",
        "plain",
        "flat",
        "entity",
        "domain",
        "metadata_payload",
        "header_body",
    ] {
        async fn take(
            Payload(policy): Payload<PolicyCreated>,
            State(numbers): State<Arc<Mutex<Vec<String>>>>,
        ) {
            numbers.lock().unwrap().push(policy.number);
        }
        let bus = bus(format).await;
        let numbers = Arc::<Mutex<Vec<String>>>::default();
        bus.subscribe("s")
            .state(Arc::clone(&numbers))
            .on(take)
            .start()
            .await
            .unwrap();
        let number = "p1".to_owned();
        bus.publish(PolicyCreated { number }).await.unwrap();
        bus.settle().await;
        assert_eq!(*numbers.lock().unwrap(), ["p1"], "{format}");
        bus.dead_letters().assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn the_dead_letter_of_a_foreign_event_keeps_its_bytes() {
    async fn fail(RawEvent(_): RawEvent) -> std::result::Result<(), String> {
        Err("no".to_owned())
    }
    let bus = bus("flat").await;
    bus.subscribe("s").on_any(fail).start().await.unwrap();
    let value =
        r#"{"id":"1","type":"policy.created","source":"x","extra":true,"payload":{"number":"p"}}"#;
    write(&bus, value).await;
    bus.settle().await;
    let letters = bus.dead_letters();
    let record = letters.only().record().unwrap();
    assert_eq!(
        record.value.as_deref(),
        Some(value.as_bytes()),
        "what the shape does not know stays"
    );
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_not_of_the_format_becomes_a_dead_letter_that_says_why() {
    let bus = bus("header_body").await;
    bus.subscribe("s")
        .state(Seen::default())
        .on_any(see)
        .start()
        .await
        .unwrap();
    write(&bus, r#"{"header":{"id":"1"}}"#).await;
    bus.settle().await;
    let letters = bus.dead_letters();
    let reason = letters.only().reason().to_owned();
    assert!(reason.contains("format `header_body`"), "{reason}");
    assert!(reason.contains("missing field `type`"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_its_format_can_not_hold_is_rejected_at_once() {
    let bus = bus("flat").await;
    let event = bus
        .event("policy.created")
        .data("image/png", &b"\x89PNG"[..]);
    let error = event.publish().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode, "{error}");
    assert!(!error.retryable());
    let outcomes = bus
        .publish_all([
            Event::builder("policy.created"),
            Event::builder("policy.created")
                .content_type("image/png")
                .data("x"),
            Event::builder("policy.created"),
        ])
        .await;
    let accepted = outcomes
        .iter()
        .map(|outcome| matches!(outcome, Outcome::Accepted(_)));
    assert_eq!(accepted.collect::<Vec<_>>(), [true, false, true]);
}

#[derive(Debug)]
struct Shouting;

impl Format for Shouting {
    fn name(&self) -> &'static str {
        "shouting"
    }

    fn write(&self, event: &Event) -> Result<RawRecord> {
        let text = event.event_type().to_uppercase();
        Ok(RawRecord::new(None, Headers::new(), Some(text.into())))
    }

    fn read(&self, record: &RawRecord, place: &Place<'_>) -> Result<Event> {
        let text = record.value.as_deref().unwrap_or_default();
        let event_type = String::from_utf8_lossy(text).to_lowercase();
        let position = place.position.to_string();
        let event = Event::builder(event_type).id(position.as_str());
        event.source(place.topic.name()).build()
    }
}

#[tokio::test(start_paused = true)]
async fn a_format_of_ones_own_is_chosen_by_its_name() {
    let builder = Bus::builder().config(config("shouting"));
    let error = TestBus::on(Bus::builder().config(config("shouting")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let bus = TestBus::on(builder.format(Shouting)).await.unwrap();
    let seen = Seen::default();
    bus.subscribe("s")
        .state(Arc::clone(&seen))
        .on_any(see)
        .start()
        .await
        .unwrap();
    bus.event("policy.created").publish().await.unwrap();
    bus.settle().await;
    assert_eq!(seen.lock().unwrap()[0].event_type(), "policy.created");
}
