//! Handlers that return before their event is settled.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use polybus::testing::TestBus;
use polybus::{
    Acknowledge, BoxError, Bus, Config, Context, RawEvent, State, Subscription, Verdict,
};
use tokio::time::{Instant, sleep, timeout};

async fn test_bus(settings: &str) -> TestBus {
    let config = format!(
        r#"
        [service]
        name = "test"
        [transports.local]
        kind = "memory"
        [[routes]]
        pattern = "*"
        transport = "local"
        topic = "work"
        [subscriptions.sub]
        retry = {{ max_attempts = 3, base = "1s", max = "1s" }}
        {settings}
        "#
    );
    let config = Config::parse(&config, "test.toml").unwrap();
    TestBus::on(Bus::builder().config(config)).await.unwrap()
}

async fn publish(bus: &Bus, id: &str, key: &str) {
    let event = bus.event("work.due").id(id).key(key);
    event.publish().await.unwrap();
}

/// What handlers put here to be settled later: event, attempt, and what settles it.
#[derive(Clone, Default)]
struct Desk(Arc<Mutex<Vec<(String, Acknowledge)>>>);

impl Desk {
    fn ids(&self) -> Vec<String> {
        let desk = self.0.lock().unwrap();
        desk.iter().map(|(id, _)| id.clone()).collect()
    }

    fn take(&self) -> Acknowledge {
        self.0.lock().unwrap().remove(0).1
    }
}

async fn put(
    RawEvent(event): RawEvent,
    context: Context,
    acknowledge: Acknowledge,
    State(desk): State<Desk>,
) {
    let id = format!("{} {}", event.id(), context.attempt());
    desk.0.lock().unwrap().push((id, acknowledge));
}

async fn start(bus: &Bus) -> (Subscription, Desk) {
    let desk = Desk::default();
    let sub = bus.subscribe("sub").state(desk.clone()).on_any(put);
    (sub.start().await.unwrap(), desk)
}

async fn a_moment() {
    sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_is_settled_when_it_is_said_and_not_when_the_handler_returns() {
    let bus = test_bus("").await;
    let (sub, desk) = start(&bus).await;
    publish(&bus, "e1", "k1").await;
    a_moment().await;
    assert_eq!(desk.ids(), ["e1 1"]);
    assert!(bus.settle_within("30s").await.is_err());
    assert_eq!((sub.counts().handled, sub.status().in_flight), (0, 1));
    assert!(desk.take().ack());
    bus.settle().await;
    assert_eq!(sub.counts().handled, 1);
}

#[tokio::test(start_paused = true)]
async fn it_takes_no_place_and_its_key_waits() {
    let bus = test_bus("concurrency = 1\nmax_in_flight = 4").await;
    let (sub, desk) = start(&bus).await;
    for (id, key) in [
        ("e1", "k1"),
        ("e2", "k1"),
        ("e3", "k2"),
        ("e4", "k3"),
        ("e5", "k4"),
    ] {
        publish(&bus, id, key).await;
    }
    a_moment().await;
    assert_eq!(desk.ids(), ["e1 1", "e3 1", "e4 1"]);
    assert_eq!(sub.status().in_flight, 4, "the window is full");
    assert!(desk.take().ack());
    a_moment().await;
    assert_eq!(desk.ids(), ["e3 1", "e4 1", "e2 1"]);
    for _ in 0..3 {
        assert!(desk.take().ack());
    }
    a_moment().await;
    assert_eq!(desk.ids(), ["e5 1"]);
    assert!(desk.take().ack());
    bus.settle().await;
}

#[tokio::test(start_paused = true)]
async fn dropped_without_a_word_it_is_a_failed_attempt() {
    let bus = test_bus("").await;
    let (sub, desk) = start(&bus).await;
    publish(&bus, "e1", "k1").await;
    for attempt in 1..=3 {
        sleep(Duration::from_secs(2)).await;
        assert_eq!(desk.ids(), [format!("e1 {attempt}")]);
        drop(desk.take());
    }
    bus.settle().await;
    bus.dead_letters().assert_len(1);
    let error = sub.status().last_error.unwrap().message;
    assert!(error.contains("dropped without a word"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn every_verdict_can_be_said_later() {
    let bus = test_bus("").await;
    let (sub, desk) = start(&bus).await;
    for key in ["k1", "k2", "k3", "k4"] {
        publish(&bus, key, key).await;
    }
    a_moment().await;
    assert!(desk.take().settle(Verdict::Drop));
    let reason = "not ours".to_owned();
    assert!(desk.take().settle(Verdict::DeadLetter { reason }));
    assert!(desk.take().settle(Err::<(), BoxError>("broken".into())));
    assert!(desk.take().settle(Ok::<_, BoxError>(())));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(desk.ids(), ["k3 2"]);
    assert!(desk.take().ack());
    bus.settle().await;
    let counts = sub.counts();
    let right = (
        counts.handled,
        counts.dropped,
        counts.dead_lettered,
        counts.retried,
    );
    assert_eq!(right, (2, 1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_time_of_the_handler_is_for_both_and_what_is_said_after_it_does_not_count() {
    let bus = test_bus("handler_timeout = '10s'").await;
    let (_sub, desk) = start(&bus).await;
    let started = Instant::now();
    publish(&bus, "e1", "k1").await;
    a_moment().await;
    let mut late = desk.take();
    assert!(late.deadline().unwrap() <= started + Duration::from_millis(10_010));
    late.expired().await;
    let taken = started.elapsed().as_millis();
    assert!((10_000..10_100).contains(&taken), "{taken} ms");
    assert!(!late.ack());
    sleep(Duration::from_secs(2)).await;
    assert_eq!(desk.ids(), ["e1 2"]);
    assert!(desk.take().ack());
    bus.settle().await;
    bus.handled("sub").assert_len(1);
}

#[tokio::test(start_paused = true)]
async fn what_the_handler_says_itself_counts_at_once() {
    async fn fail(acknowledge: Acknowledge, State(desk): State<Desk>) -> Result<(), BoxError> {
        desk.0.lock().unwrap().push((String::new(), acknowledge));
        Err("broken".into())
    }
    let bus = test_bus("").await;
    let desk = Desk::default();
    let sub = bus.subscribe("sub").state(desk.clone()).on_any(fail);
    let sub = sub.start().await.unwrap();
    publish(&bus, "e1", "k1").await;
    a_moment().await;
    assert_eq!(sub.counts().retried, 1);
    assert!(!desk.take().ack());
    bus.settle().await;
    bus.dead_letters().assert_len(1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_is_to_be_said_until_its_deadline() {
    let bus = test_bus("").await;
    let (_sub, desk) = start(&bus).await;
    publish(&bus, "e1", "k1").await;
    publish(&bus, "e2", "k2").await;
    a_moment().await;
    let closing = bus.close("10s");
    let saying = async {
        sleep(Duration::from_secs(5)).await;
        assert!(desk.take().ack());
        let mut other = desk.take();
        let over = timeout(Duration::from_secs(6), other.expired()).await;
        assert!(over.is_ok(), "after the stop it does not count");
    };
    let (report, ()) = tokio::join!(closing, saying);
    let report = report.unwrap();
    assert_eq!(report.unfinished(), 1);
    assert_eq!(report.subscriptions[0].counts.handled, 1);
}
