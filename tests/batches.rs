//! Handlers that take several events at once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "batches/lost.rs"]
mod lost;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use polybus::testing::{Progress, TestBus};
use polybus::{Batch, BoxError, Bus, Config, ErrorKind, Event, Payload, Permanent, State, Verdict};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::Instant;

#[derive(Event, Serialize, Deserialize, Debug, Clone)]
#[event(type = "user.seen", key = id)]
struct Seen {
    id: String,
    nr: u32,
}

#[derive(Event, Serialize, Deserialize, Debug)]
#[event(type = "user.left", key = id)]
struct Left {
    id: String,
}

/// What each call of the handler got, in order: key and number of each entry.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<Vec<String>>>>);

impl Calls {
    fn note(&self, batch: &Batch<Seen>) {
        let entry =
            |entry: &polybus::Entry<Seen>| format!("{}{}", entry.payload.id, entry.payload.nr);
        self.0
            .lock()
            .unwrap()
            .push(batch.iter().map(entry).collect());
    }

    fn all(&self) -> Vec<Vec<String>> {
        self.0.lock().unwrap().clone()
    }

    fn flat(&self) -> Vec<String> {
        self.all().concat()
    }
}

async fn test_bus() -> TestBus {
    let config = r#"
        [service]
        name = "test"
        [transports.local]
        kind = "memory"
        [[routes]]
        pattern = "user.*"
        transport = "local"
        topic = "users"
        [subscriptions.index]
        retry = { max_attempts = 3, base = "1s", max = "10s" }
    "#;
    let config = Config::parse(config, "test.toml").unwrap();
    TestBus::on(Bus::builder().config(config)).await.unwrap()
}

/// Publishes events as `a1`: the key and the number.
async fn publish(bus: &Bus, events: &[&str]) {
    let events = events.iter().map(|event| Seen {
        id: event[..1].into(),
        nr: event[1..].parse().unwrap(),
    });
    for outcome in bus.publish_all(events).await {
        outcome.into_result().unwrap();
    }
}

async fn note(batch: Batch<Seen>, State(calls): State<Calls>) {
    calls.note(&batch);
}

async fn start_noting(bus: &Bus, max_events: usize) -> Calls {
    let calls = Calls::default();
    let subscription = bus.subscribe("index").state(calls.clone()).on_batch(note);
    let subscription = subscription.batch(max_events, "50ms");
    subscription.start().await.unwrap();
    calls
}

#[tokio::test(start_paused = true)]
async fn a_batch_starts_when_it_is_full_or_has_waited() {
    let bus = test_bus().await;
    let calls = start_noting(&bus, 3).await;
    let started = Instant::now();
    publish(&bus, &["a1", "b2", "c3", "d4", "e5"]).await;
    bus.settle().await;
    let expected: [&[&str]; 2] = [&["a1", "b2", "c3"], &["d4", "e5"]];
    assert_eq!(calls.all(), expected);
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "of the paused clock"
    );
    bus.handled("index").assert_len(5);
}

#[tokio::test(start_paused = true)]
async fn a_batch_holds_several_events_of_a_key_in_their_order() {
    let bus = test_bus().await;
    let calls = start_noting(&bus, 4).await;
    publish(&bus, &["a1", "a2", "b1", "a3", "a4", "b2"]).await;
    bus.settle().await;
    assert_eq!(calls.all()[0].len(), 4);
    let of = |key| {
        let flat = calls.flat();
        flat.into_iter()
            .filter(|it| it.starts_with(key))
            .collect::<Vec<_>>()
    };
    assert_eq!(of('a'), ["a1", "a2", "a3", "a4"]);
    assert_eq!(of('b'), ["b1", "b2"]);
}

#[tokio::test(start_paused = true)]
async fn the_next_events_of_a_key_wait_until_the_batch_is_done() {
    async fn gated(batch: Batch<Seen>, State((calls, gate)): State<(Calls, Arc<Semaphore>)>) {
        calls.note(&batch);
        if batch[0].payload.id == "a" {
            gate.acquire().await.unwrap().forget();
        }
    }
    let bus = test_bus().await;
    let (calls, gate) = (Calls::default(), Arc::new(Semaphore::new(0)));
    let state = (calls.clone(), Arc::clone(&gate));
    let subscription = bus.subscribe("index").state(state).on_batch(gated);
    subscription.batch(1, "50ms").start().await.unwrap();
    publish(&bus, &["a1", "a2", "b1"]).await;
    assert!(bus.settle_within("10s").await.is_err(), "a1 is at work");
    assert_eq!(calls.flat(), ["a1", "b1"]);
    gate.add_permits(2);
    bus.settle().await;
    assert_eq!(calls.flat(), ["a1", "b1", "a2"]);
}

#[tokio::test(start_paused = true)]
async fn each_entry_has_its_own_verdict() {
    async fn judge(batch: Batch<Seen>) -> Vec<Verdict> {
        let verdict = |entry: &polybus::Entry<Seen>| match entry.payload.nr {
            1 => Verdict::Ack,
            2 => Verdict::Drop,
            3 if entry.context.attempt() == 1 => Verdict::Retry { after: None },
            3 => Verdict::Ack,
            _ => Verdict::DeadLetter {
                reason: "too many".into(),
            },
        };
        batch.iter().map(verdict).collect()
    }
    let bus = test_bus().await;
    let subscription = bus.subscribe("index").on_batch(judge).batch(4, "50ms");
    let subscription = subscription.start().await.unwrap();
    publish(&bus, &["a1", "b2", "c3", "d4"]).await;
    bus.settle().await;
    let counts = subscription.counts();
    assert_eq!((counts.handled, counts.dropped), (2, 1));
    assert_eq!((counts.retried, counts.dead_lettered), (1, 1));
    assert_eq!(bus.retried("index").only().key(), Some("c"));
    let letters = bus.dead_letters();
    assert_eq!(letters.only().reason(), "too many");
    assert_eq!(letters.only().event().unwrap().key(), Some("d"));
}

#[tokio::test(start_paused = true)]
async fn what_cant_be_read_is_put_away_alone() {
    let bus = test_bus().await;
    let calls = start_noting(&bus, 10).await;
    publish(&bus, &["a1"]).await;
    let wrong = bus.event("user.seen").key("b").json("not a user").unwrap();
    wrong.publish().await.unwrap();
    publish(&bus, &["c3"]).await;
    bus.settle().await;
    let expected: [&[&str]; 1] = [&["a1", "c3"]];
    assert_eq!(calls.all(), expected);
    let letters = bus.dead_letters();
    assert_eq!(letters.only().event().unwrap().key(), Some("b"));
    assert_eq!(letters.only().attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_nothing_readable_calls_no_handler() {
    let bus = test_bus().await;
    let calls = start_noting(&bus, 10).await;
    let wrong = bus.event("user.seen").json("not a user").unwrap();
    wrong.publish().await.unwrap();
    bus.settle().await;
    assert!(calls.all().is_empty());
    bus.dead_letters().assert_len(1);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_of_all_and_order_holds_over_the_retry() {
    async fn second_time(batch: Batch<Seen>, State(calls): State<Calls>) -> Result<(), BoxError> {
        calls.note(&batch);
        let first = batch
            .iter()
            .any(|entry| entry.context.attempt() == 1 && entry.payload.nr < 4);
        if first { Err("not yet".into()) } else { Ok(()) }
    }
    let bus = test_bus().await;
    let calls = Calls::default();
    let subscription = bus.subscribe("index").state(calls.clone());
    let subscription = subscription.on_batch(second_time).batch(3, "50ms");
    subscription.start().await.unwrap();
    publish(&bus, &["a1", "a2", "a3", "a4"]).await;
    bus.settle().await;
    let expected: [&[&str]; 3] = [&["a1", "a2", "a3"], &["a1", "a2", "a3"], &["a4"]];
    assert_eq!(calls.all(), expected);
    bus.retried("index").assert_len(3);
    bus.handled("index").assert_len(4);
}

#[tokio::test(start_paused = true)]
async fn those_that_fail_within_a_key_come_again_before_the_next_ones() {
    async fn odd_later(batch: Batch<Seen>, State(calls): State<Calls>) -> Vec<Verdict> {
        calls.note(&batch);
        let verdict = |entry: &polybus::Entry<Seen>| {
            let again = entry.payload.nr % 2 == 1 && entry.context.attempt() == 1;
            if again {
                Verdict::Retry { after: None }
            } else {
                Verdict::Ack
            }
        };
        batch.iter().map(verdict).collect()
    }
    let bus = test_bus().await;
    let calls = Calls::default();
    let subscription = bus.subscribe("index").state(calls.clone());
    let subscription = subscription.on_batch(odd_later).batch(4, "50ms");
    subscription.start().await.unwrap();
    publish(&bus, &["a1", "a2", "a3", "a4", "a6"]).await;
    bus.settle().await;
    let expected: [&[&str]; 2] = [&["a1", "a2", "a3", "a4"], &["a1", "a3", "a6"]];
    assert_eq!(calls.all(), expected);
}

#[tokio::test(start_paused = true)]
async fn panics_and_wrong_numbers_of_verdicts_are_retried_and_put_away() {
    async fn short(batch: Batch<Seen>) -> Vec<Verdict> {
        assert!(batch[0].payload.nr != 9, "nine is not handled");
        batch.iter().skip(1).map(|_| Verdict::Ack).collect()
    }
    let bus = test_bus().await;
    let subscription = bus.subscribe("index").on_batch(short).batch(2, "50ms");
    subscription.start().await.unwrap();
    publish(&bus, &["a1", "b2"]).await;
    bus.settle().await;
    publish(&bus, &["c9"]).await;
    bus.settle().await;
    let letters = bus.dead_letters();
    letters.assert_len(3);
    assert!(
        letters[0].reason().contains("the batch handler returned"),
        "{letters}"
    );
    assert!(
        letters[2].reason().contains("nine is not handled"),
        "{letters}"
    );
    assert!(letters.iter().all(|letter| letter.attempts() == 3));
    bus.handled("index").assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_permanent_error_puts_all_away_at_once() {
    async fn refuse(_: Batch<Seen>) -> Result<(), Permanent> {
        Err(Permanent::new("closed for good"))
    }
    let bus = test_bus().await;
    let subscription = bus.subscribe("index").on_batch(refuse).batch(3, "50ms");
    subscription.start().await.unwrap();
    publish(&bus, &["a1", "a2", "b1"]).await;
    bus.settle().await;
    bus.dead_letters().assert_len(3);
    bus.retried("index").assert_empty();
}

#[tokio::test(start_paused = true)]
async fn order_holds_between_batch_and_single_handlers() {
    async fn left(Payload(left): Payload<Left>, State(calls): State<Calls>) {
        calls
            .0
            .lock()
            .unwrap()
            .push(vec![format!("{} left", left.id)]);
    }
    let bus = test_bus().await;
    let calls = Calls::default();
    let subscription = bus.subscribe("index").state(calls.clone());
    let subscription = subscription.on_batch(note).on(left).batch(10, "50ms");
    subscription.start().await.unwrap();
    publish(&bus, &["a1", "a2"]).await;
    bus.publish(Left { id: "a".into() }).await.unwrap();
    publish(&bus, &["a3"]).await;
    bus.settle().await;
    let expected: [&[&str]; 3] = [&["a1", "a2"], &["a left"], &["a3"]];
    assert_eq!(calls.all(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_event_for_another_handler_does_not_make_a_batch_wait_longer() {
    type Called = Arc<Mutex<Option<Instant>>>;
    async fn when(_: Batch<Seen>, State(called): State<Called>) {
        *called.lock().unwrap() = Some(Instant::now());
    }
    async fn left(_: Payload<Left>) {}
    let bus = test_bus().await;
    let called = Called::default();
    let subscription = bus.subscribe("index").state(called.clone());
    let subscription = subscription.on_batch(when).on(left).batch(10, "50ms");
    subscription.start().await.unwrap();
    let began = Instant::now();
    publish(&bus, &["a1"]).await;
    tokio::time::sleep(Duration::from_millis(40)).await;
    bus.publish(Left { id: "b".into() }).await.unwrap();
    bus.settle().await;
    let waited = called.lock().unwrap().unwrap() - began;
    assert!((50..60).contains(&waited.as_millis()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_gives_back_what_is_collected() {
    let bus = test_bus().await;
    let calls = Calls::default();
    let subscription = bus.subscribe("index").state(calls.clone()).on_batch(note);
    let subscription = subscription.batch(10, "1h").start().await.unwrap();
    publish(&bus, &["a1", "a2", "b1"]).await;
    assert!(bus.settle_within("1m").await.is_err(), "the batch waits");
    assert_eq!(subscription.counts().received, 3);
    let report = bus.close("10s").await.unwrap();
    assert_eq!(report.unfinished(), 3);
    assert!(calls.all().is_empty());
    let history = bus.history("index");
    assert!(history.iter().all(|it| it.progress == Progress::Released));
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_a_running_batch_finish() {
    async fn slow(_: Batch<Seen>) {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let bus = test_bus().await;
    let subscription = bus.subscribe("index").on_batch(slow).batch(2, "50ms");
    let subscription = subscription.start().await.unwrap();
    publish(&bus, &["a1", "b1"]).await;
    assert!(bus.settle_within("1s").await.is_err(), "the batch runs");
    let report = bus.close("30s").await.unwrap();
    assert_eq!(report.unfinished(), 0);
    assert_eq!(subscription.counts().handled, 2);
}

#[tokio::test(start_paused = true)]
async fn batches_fill_up_beyond_the_window_of_single_events() {
    let bus = test_bus().await;
    let calls = start_noting(&bus, 3000).await;
    let events: Vec<_> = (0..6000)
        .map(|nr| format!("{}{nr}", "abcdefgh".split_at(nr % 8).1.split_at(1).0))
        .collect();
    let events: Vec<_> = events.iter().map(String::as_str).collect();
    publish(&bus, &events).await;
    bus.settle().await;
    let sizes: Vec<_> = calls.all().iter().map(Vec::len).collect();
    assert_eq!(sizes, [3000, 3000]);
}

#[tokio::test]
async fn wrong_limits_are_errors_of_the_start() {
    let bus = test_bus().await;
    for limits in [(0, "50ms"), (10, "soon")] {
        let subscription = bus.subscribe("index").state(Calls::default());
        let subscription = subscription.on_batch(note).batch(limits.0, limits.1);
        let error = subscription.start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}
