//! What a subscription does with events, on the memory transport: which handler gets them, in
//! what order, and what becomes of those that fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polybus::handler::Verdict;
use polybus::transport::{
    Content, Outgoing, Publisher, RawRecord, Settlement, Settler, Subscriber,
    Subscription as Membership, Transport,
};
use polybus::{
    BoxError, Bus, Config, Context, Error, ErrorKind, Event, Headers, Payload, Permanent, RawEvent,
    Result, State, Topic,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", key = id)]
struct UserCreated {
    id: String,
}

/// What handlers saw, in order.
#[derive(Clone)]
struct Seen(mpsc::UnboundedSender<String>);

impl Seen {
    fn new() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    fn note(&self, what: impl Into<String>) {
        self.0.send(what.into()).unwrap();
    }
}

async fn next(seen: &mut mpsc::UnboundedReceiver<String>) -> String {
    let next = tokio::time::timeout(Duration::from_secs(60), seen.recv()).await;
    next.expect("a handler runs within a minute")
        .expect("the handlers live")
}

async fn bus(settings: &str) -> Bus {
    let config = format!(
        r#"
        [service]
        name = "test"
        [transports.local]
        kind = "memory"
        [[routes]]
        pattern = "user.*"
        transport = "local"
        topic = "user-events"
        [[routes]]
        pattern = "*.dead"
        transport = "local"
        topic = "obituaries"
        [subscriptions.sub]
        retry = {{ max_attempts = 3, base = "10ms", max = "20ms" }}
        {settings}
        "#
    );
    Bus::builder()
        .config(Config::parse(&config, "test.toml").unwrap())
        .build()
        .await
        .unwrap()
}

async fn publish(bus: &Bus, event_type: &str, key: &str, data: &str) {
    let event = bus
        .event(event_type.to_owned())
        .key(key)
        .json(data)
        .unwrap();
    event.publish().await.unwrap();
}

/// The events and headers in the topic of dead letters, as another group sees them.
async fn dead_letters(bus: &Bus, mut expected: usize) -> Vec<(Option<Event>, Headers)> {
    let topic = Topic::new("user-events.dlq");
    let transport = bus.transport("local").unwrap();
    let mut subscriber = transport
        .subscribe(Membership::new("judge", [topic]))
        .await
        .unwrap();
    let settler = subscriber.settler();
    let mut letters = Vec::new();
    while expected > 0 {
        for delivery in subscriber.recv(expected).await.unwrap() {
            settler
                .settle(&[(delivery.token(), Settlement::Ack)])
                .await
                .remove(0)
                .unwrap();
            let event = delivery.event().ok().cloned();
            letters.push((event, delivery.headers().clone()));
            expected -= 1;
        }
    }
    letters
}

#[tokio::test]
async fn the_most_specific_handler_gets_the_event() {
    let (seen, mut notes) = Seen::new();
    let bus = bus("").await;
    let note = |name: &'static str| {
        move |State(seen): State<Seen>, RawEvent(event): RawEvent| async move {
            seen.note(format!("{name} {}", event.event_type()));
        }
    };
    async fn typed(State(seen): State<Seen>, Payload(user): Payload<UserCreated>) {
        seen.note(format!("typed {}", user.id));
    }
    let subscription = bus.subscribe("sub").state(seen);
    let subscription = subscription
        .on_any(note("any"))
        .on_pattern("user.*", note("users"));
    subscription
        .on_pattern("user.+.done", note("done"))
        .on(typed)
        .start()
        .await
        .unwrap();

    bus.publish(UserCreated { id: "u1".into() }).await.unwrap();
    assert_eq!(next(&mut notes).await, "typed u1");
    for (event_type, name) in [
        ("user.mail.done", "done"),
        ("user.updated", "users"),
        ("mail.dead", "any"),
    ] {
        publish(&bus, event_type, "k", "").await;
        assert_eq!(next(&mut notes).await, format!("{name} {event_type}"));
    }
}

/// What runs side by side, and in what order it ended.
#[derive(Clone, Default)]
struct Watch {
    order: Arc<Mutex<Vec<(String, usize)>>>,
    running: Arc<Mutex<HashSet<String>>>,
    most: Arc<AtomicUsize>,
}

impl Watch {
    async fn handle(&self, event: &Event) {
        let key = event.key().unwrap().to_owned();
        let running = {
            let mut running = self.running.lock().unwrap();
            assert!(running.insert(key.clone()), "two events of a key at once");
            running.len()
        };
        self.most.fetch_max(running, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let number = polybus::Codec::decode(event).unwrap();
        self.order.lock().unwrap().push((key.clone(), number));
        self.running.lock().unwrap().remove(&key);
    }

    fn order_of(&self, key: &str) -> Vec<usize> {
        let order = self.order.lock().unwrap();
        order
            .iter()
            .filter(|(known, _)| known == key)
            .map(|(_, number)| *number)
            .collect()
    }
}

#[tokio::test]
async fn events_of_a_key_run_one_at_a_time_in_order_and_keys_side_by_side() {
    const KEYS: usize = 20;
    const EVENTS: usize = 50;
    async fn handle(State((watch, seen)): State<(Watch, Seen)>, RawEvent(event): RawEvent) {
        watch.handle(&event).await;
        seen.note("");
    }
    let (seen, mut notes) = Seen::new();
    let watch = Watch::default();
    let bus = bus("concurrency = 8").await;
    bus.subscribe("sub")
        .state((watch.clone(), seen))
        .on_any(handle)
        .start()
        .await
        .unwrap();
    let events = (0..KEYS * EVENTS).map(|number| {
        let builder = Event::builder("user.updated").key(format!("k{}", number % KEYS));
        builder.json(&(number / KEYS)).unwrap()
    });
    let outcomes = bus.publish_all(events).await;
    assert!(outcomes.iter().all(polybus::Outcome::is_accepted));
    for _ in 0..KEYS * EVENTS {
        next(&mut notes).await;
    }
    for key in 0..KEYS {
        assert_eq!(
            watch.order_of(&format!("k{key}")),
            (0..EVENTS).collect::<Vec<_>>()
        );
    }
    let most = watch.most.load(Ordering::SeqCst);
    assert!(
        (2..=8).contains(&most),
        "{most} keys side by side, with concurrency 8"
    );
}

/// Handlers that return when they are called go another way than those that wait: both at once, of
/// the same keys, with failures among them.
#[tokio::test]
async fn a_key_keeps_its_order_where_some_handlers_return_at_once_and_others_do_not() {
    const EVENTS: usize = 400;
    const KEYS: usize = 7;
    let bus = bus("").await;
    let (seen, mut notes) = Seen::new();
    let handler = |State(seen): State<Seen>, RawEvent(event): RawEvent, context: Context| async move {
        let data: String = serde_json::from_slice(event.data().unwrap()).unwrap();
        let number: usize = data.parse().unwrap();
        if number.is_multiple_of(5) {
            tokio::task::yield_now().await;
        }
        if number.is_multiple_of(11) && context.attempt() < 3 {
            return Err("not yet");
        }
        seen.note(data);
        Ok(())
    };
    for number in 0..EVENTS {
        let key = format!("k{}", number % KEYS);
        publish(&bus, "user.counted", &key, &number.to_string()).await;
    }
    let subscription = bus.subscribe("sub").state(seen).on_any(handler);
    let subscription = subscription.start().await.unwrap();
    let mut last = [None; KEYS];
    for _ in 0..EVENTS {
        let number: usize = next(&mut notes).await.parse().unwrap();
        let last = &mut last[number % KEYS];
        assert_eq!(number, last.map_or(number % KEYS, |last| last + KEYS));
        *last = Some(number);
    }
    let report = subscription.stop("10s").await.unwrap();
    assert_eq!(report.counts.handled, EVENTS as u64);
    assert_eq!(report.counts.retried, 2 * EVENTS.div_ceil(11) as u64);
}

#[tokio::test]
async fn a_failed_event_is_tried_again_and_then_put_away_with_its_provenance() {
    async fn handle(State(seen): State<Seen>, context: Context) -> Result<(), BoxError> {
        seen.note(format!("attempt {}", context.attempt()));
        Err("the mail server is down".into())
    }
    let (seen, mut notes) = Seen::new();
    let bus = bus("").await;
    let subscription = bus
        .subscribe("sub")
        .state(seen)
        .on_any(handle)
        .start()
        .await
        .unwrap();
    publish(&bus, "user.updated", "k", "payload").await;
    for attempt in 1..=3 {
        assert_eq!(next(&mut notes).await, format!("attempt {attempt}"));
    }
    let letters = dead_letters(&bus, 1).await;
    let (event, headers) = &letters[0];
    assert_eq!(event.as_ref().unwrap().data().unwrap(), "\"payload\"");
    for (name, value) in [
        ("polybus-origin-transport", "local"),
        ("polybus-origin-topic", "user-events"),
        ("polybus-group", "test"),
        ("polybus-subscription", "sub"),
        ("polybus-attempts", "3"),
        ("polybus-reason", "the mail server is down"),
    ] {
        assert_eq!(
            headers.first(name).map(|value| &value[..]),
            Some(value.as_bytes()),
            "{name}"
        );
    }
    let report = bus.close("10s").await.unwrap();
    let counts = report.subscriptions[0].counts;
    assert_eq!(
        (counts.retried, counts.dead_lettered, counts.handled),
        (2, 1, 0)
    );
    assert_eq!(subscription.counts(), counts);
}

#[tokio::test]
async fn what_trying_again_can_not_mend_is_put_away_at_once() {
    async fn permanent() -> Result<(), Permanent> {
        Err(Permanent::new("no such user"))
    }
    async fn verdict() -> Verdict {
        Verdict::DeadLetter {
            reason: "not ours".into(),
        }
    }
    async fn typed(_: Payload<UserCreated>) {}
    let bus = bus("").await;
    let subscription = bus.subscribe("sub").on_pattern("user.permanent", permanent);
    subscription
        .on_pattern("user.verdict", verdict)
        .on(typed)
        .start()
        .await
        .unwrap();
    for (event_type, reason) in [
        ("user.permanent", "no such user"),
        ("user.verdict", "not ours"),
        ("user.created", "not what the handler takes"),
    ] {
        publish(&bus, event_type, "k", "not a user").await;
        let letters = dead_letters(&bus, 1).await;
        let (event, headers) = letters.last().unwrap();
        let text = String::from_utf8(headers.first("polybus-reason").unwrap().to_vec()).unwrap();
        assert_eq!(event.as_ref().unwrap().event_type(), event_type);
        assert!(text.contains(reason), "{text}");
        assert_eq!(headers.first("polybus-attempts").unwrap(), "1");
    }
    let _ = bus.close("10s").await.unwrap();
}

#[tokio::test]
async fn a_panic_is_a_failure_and_other_keys_go_on() {
    async fn handle(State(seen): State<Seen>, RawEvent(event): RawEvent) {
        assert_ne!(event.key(), Some("bad"), "this key panics");
        seen.note(event.key().unwrap());
    }
    let (seen, mut notes) = Seen::new();
    let bus = bus("").await;
    bus.subscribe("sub")
        .state(seen)
        .on_any(handle)
        .start()
        .await
        .unwrap();
    publish(&bus, "user.updated", "bad", "").await;
    publish(&bus, "user.updated", "good", "").await;
    assert_eq!(next(&mut notes).await, "good");
    let letters = dead_letters(&bus, 1).await;
    let reason = letters[0].1.first("polybus-reason").unwrap();
    let reason = String::from_utf8(reason.to_vec()).unwrap();
    assert!(
        reason.contains("panicked") && reason.contains("this key panics"),
        "{reason}"
    );
}

#[tokio::test]
async fn bytes_that_are_no_event_are_put_away_raw_and_the_subscription_goes_on() {
    async fn handle(State(seen): State<Seen>, RawEvent(event): RawEvent) {
        seen.note(event.event_type());
    }
    let (seen, mut notes) = Seen::new();
    let bus = bus("").await;
    let subscription = bus
        .subscribe("sub")
        .state(seen)
        .on_any(handle)
        .start()
        .await
        .unwrap();
    let record = RawRecord::new(None, Headers::new(), Some(b"\xff\x00garbage"[..].into()));
    let publisher = bus.transport("local").unwrap().publisher().await.unwrap();
    let garbage = Outgoing::raw(Topic::new("user-events"), record.clone());
    assert!(matches!(garbage.content, Content::Raw(_)));
    assert!(publisher.publish(&[garbage]).await[0].is_accepted());
    publish(&bus, "user.updated", "k", "").await;
    assert_eq!(next(&mut notes).await, "user.updated");

    let letters = Membership::new("judge", [Topic::new("user-events.dlq")]);
    let mut letters = bus
        .transport("local")
        .unwrap()
        .subscribe(letters)
        .await
        .unwrap();
    let letter = letters.recv(1).await.unwrap().remove(0);
    let undecodable = letter.event().unwrap_err();
    assert_eq!(undecodable.record.value, record.value);
    assert!(undecodable.record.headers.first("polybus-reason").is_some());
    assert_eq!(subscription.counts().undecodable, 1);
}

#[tokio::test]
async fn stopping_finishes_what_runs_and_gives_the_rest_back() {
    async fn handle(State(seen): State<Seen>, RawEvent(event): RawEvent, context: Context) {
        seen.note(format!("start {}", event.key().unwrap()));
        if event.key() == Some("slow") {
            context.stopping().cancelled().await;
        }
        seen.note(format!("end {}", event.key().unwrap()));
    }
    let (seen, mut notes) = Seen::new();
    let bus = bus("concurrency = 1").await;
    bus.subscribe("sub")
        .state(seen)
        .on_any(handle)
        .start()
        .await
        .unwrap();
    publish(&bus, "user.updated", "slow", "").await;
    assert_eq!(next(&mut notes).await, "start slow");
    publish(&bus, "user.updated", "next", "").await;
    let report = bus.close("30s").await.unwrap();
    assert_eq!(next(&mut notes).await, "end slow");
    assert!(notes.try_recv().is_err(), "nothing starts after the stop");
    assert_eq!(report.subscriptions[0].counts.handled, 1);
    report.into_result().unwrap();
    let error = bus
        .publish(UserCreated { id: "late".into() })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_ends_with_the_deadline_and_its_event_is_given_back() {
    async fn hang(State(seen): State<Seen>) {
        seen.note("start");
        std::future::pending::<()>().await;
    }
    let (seen, mut notes) = Seen::new();
    let bus = bus("").await;
    bus.subscribe("sub")
        .state(seen)
        .on_any(hang)
        .start()
        .await
        .unwrap();
    publish(&bus, "user.updated", "k", "").await;
    notes.recv().await.unwrap();
    let report = bus.close("5s").await.unwrap();
    assert_eq!(
        (report.unfinished(), report.subscriptions[0].counts.handled),
        (1, 0)
    );
    let lag = bus
        .topics()
        .lag("local", "test", "user-events")
        .await
        .unwrap();
    assert!(!lag.is_zero(), "the event stays with the group");
}

#[tokio::test]
async fn events_that_no_handler_takes_go_where_the_config_says() {
    async fn typed(_: Payload<UserCreated>) {}
    // Acknowledged and counted.
    let acked = bus("unhandled = \"ack\"").await;
    let subscription = acked.subscribe("sub").on(typed).start().await.unwrap();
    publish(&acked, "user.other", "k", "").await;
    publish(&acked, "user.created", "k", "bad").await;
    dead_letters(&acked, 1).await;
    assert_eq!(subscription.counts().unhandled, 1);
    // Put away.
    let put_away = bus("unhandled = \"dead_letter\"").await;
    put_away.subscribe("sub").on(typed).start().await.unwrap();
    publish(&put_away, "user.other", "k", "").await;
    assert_eq!(
        dead_letters(&put_away, 1).await[0]
            .0
            .as_ref()
            .unwrap()
            .event_type(),
        "user.other"
    );
    // A reason to stop, which loses nothing.
    let stopping = bus("unhandled = \"stop\"").await;
    stopping.subscribe("sub").on(typed).start().await.unwrap();
    publish(&stopping, "user.other", "k", "").await;
    let error: Error = stopping
        .run_until(std::future::pending())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("user.other"), "{error}");
    assert!(
        !stopping
            .topics()
            .lag("local", "test", "user-events")
            .await
            .unwrap()
            .is_zero()
    );
}

#[tokio::test]
async fn two_subscriptions_may_not_share_a_group_on_the_same_topic() {
    let bus = bus("").await;
    bus.subscribe("first")
        .on_any(|| async {})
        .start()
        .await
        .unwrap();
    let error = bus
        .subscribe("second")
        .on_any(|| async {})
        .start()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("[subscriptions.second]"),
        "{error}"
    );
    bus.subscribe("third")
        .group("another")
        .on_any(|| async {})
        .start()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_subscription_that_discovers_topics_does_not_handle_its_own_dead_letters() {
    async fn fail(State(seen): State<Seen>, context: Context) -> Result<(), Permanent> {
        seen.note(context.topic());
        Err(Permanent::new("never"))
    }
    let config = r#"
        [service]
        name = "test"
        [transports.local]
        kind = "memory"
        [[routes]]
        pattern = "user.*"
        transport = "local"
        topic = "{type}"
    "#;
    let config = Config::parse(config, "test.toml").unwrap();
    let bus = Bus::builder().config(config).build().await.unwrap();
    let (seen, mut notes) = Seen::new();
    let subscription = bus
        .subscribe("sub")
        .state(seen)
        .on_any(fail)
        .start()
        .await
        .unwrap();
    for event_type in ["user.created", "user.updated"] {
        publish(&bus, event_type, "k", "").await;
        assert_eq!(next(&mut notes).await, event_type);
    }
    // Both dead letters are read and passed over.
    while subscription.counts().unhandled < 2 {
        tokio::task::yield_now().await;
    }
    let _ = bus.close("10s").await.unwrap();
    assert!(notes.try_recv().is_err(), "no dead letter was handled");
    assert_eq!(subscription.counts().dead_lettered, 2);
}

#[tokio::test]
async fn a_subscription_that_is_started_later_and_fails_ends_the_run_too() {
    async fn typed(_: Payload<UserCreated>) {}
    let bus = bus("unhandled = \"stop\"").await;
    let running = bus.clone();
    let running = tokio::spawn(async move { running.run_until(std::future::pending()).await });
    tokio::task::yield_now().await;
    bus.subscribe("sub").on(typed).start().await.unwrap();
    publish(&bus, "user.other", "k", "").await;
    let ended = tokio::time::timeout(Duration::from_secs(10), running).await;
    let error = ended.expect("the run ends").unwrap().unwrap_err();
    assert!(error.to_string().contains("user.other"), "{error}");
}
