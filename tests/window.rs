//! Which events wait for each other, and how many a subscription has in hand.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polybus::testing::TestBus;
use polybus::{Bus, Config, RawEvent, State, Verdict};
use tokio::sync::Semaphore;
use tokio::time::sleep;

async fn test_bus(settings: &str) -> TestBus {
    let config = format!(
        r#"
        [service]
        name = "test"
        [transports.local]
        kind = "memory"
        [[routes]]
        pattern = "first.*"
        transport = "local"
        topic = "first"
        [[routes]]
        pattern = "second.*"
        transport = "local"
        topic = "second"
        [subscriptions.sub]
        {settings}
        "#
    );
    let config = Config::parse(&config, "test.toml").unwrap();
    TestBus::on(Bus::builder().config(config)).await.unwrap()
}

/// Publishes events of a type, with different keys and every third without one.
async fn publish(bus: &Bus, event_type: &'static str, count: usize, bytes: usize) {
    for number in 0..count {
        let event = bus.event(event_type).id(format!("{number}"));
        let event = event.data("application/octet-stream", vec![0; bytes]);
        let event = match number % 3 {
            0 => event,
            key => event.key(format!("k{key}")),
        };
        event.publish().await.unwrap();
    }
}

/// Who is at work, and at the most.
#[derive(Clone, Default)]
struct AtWork {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    ended: Arc<Mutex<Vec<String>>>,
}

async fn work(State(at_work): State<AtWork>, RawEvent(event): RawEvent) {
    let now = at_work.now.fetch_add(1, Ordering::SeqCst) + 1;
    at_work.most.fetch_max(now, Ordering::SeqCst);
    // The earlier ones take longer, so that only waiting keeps the order.
    let number: u64 = event.id().parse().unwrap();
    sleep(Duration::from_millis(100 - number)).await;
    at_work.now.fetch_sub(1, Ordering::SeqCst);
    let ended = format!("{} {number}", event.event_type());
    at_work.ended.lock().unwrap().push(ended);
}

async fn handle(settings: &str) -> (AtWork, Vec<String>) {
    let bus = test_bus(settings).await;
    let at_work = AtWork::default();
    publish(&bus, "first.a", 9, 1).await;
    publish(&bus, "second.a", 9, 1).await;
    let sub = bus.subscribe("sub").state(at_work.clone()).on_any(work);
    sub.start().await.unwrap();
    bus.settle().await;
    let ended = at_work.ended.lock().unwrap().clone();
    assert_eq!(ended.len(), 18);
    (at_work, ended)
}

#[tokio::test(start_paused = true)]
async fn events_of_a_partition_are_handled_one_after_the_other_keyless_ones_too() {
    let (at_work, ended) = handle("ordering = 'partition'").await;
    assert_eq!(at_work.most.load(Ordering::SeqCst), 2, "two topics");
    for topic in ["first.a", "second.a"] {
        let of_topic = ended.iter().filter(|it| it.starts_with(topic));
        let right: Vec<_> = (0..9).map(|number| format!("{topic} {number}")).collect();
        assert!(of_topic.eq(&right), "{ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_order_all_are_handled_at_once() {
    let (at_work, ended) = handle("ordering = 'none'").await;
    assert_eq!(at_work.most.load(Ordering::SeqCst), 18);
    assert!(ended[0].ends_with('8'), "the shortest is first: {ended:?}");
}

#[tokio::test(start_paused = true)]
async fn the_order_of_keys_is_the_default() {
    let (at_work, _) = handle("").await;
    let most = at_work.most.load(Ordering::SeqCst);
    assert_eq!(
        most,
        2 * (3 + 2),
        "three without a key and two keys, of each topic"
    );
}

type Gate = Arc<Semaphore>;

async fn pass(State(gate): State<Gate>) {
    gate.acquire().await.unwrap().forget();
}

#[tokio::test(start_paused = true)]
async fn what_has_too_many_bytes_is_not_read() {
    let bus = test_bus("max_in_flight_bytes = '160kB'\nordering = 'none'").await;
    let gate = Arc::new(Semaphore::new(0));
    publish(&bus, "first.a", 200, 10_000).await;
    let sub = bus.subscribe("sub").state(Arc::clone(&gate)).on_any(pass);
    let sub = sub.start().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let status = sub.status();
    assert_eq!(status.in_flight, 16, "the first read is a small one");
    assert!(status.in_flight_bytes >= 160_000, "{status:?}");
    for _ in 0..200 {
        gate.add_permits(1);
        sleep(Duration::from_millis(10)).await;
        let status = sub.status();
        assert!(status.in_flight <= 16, "{status:?}");
    }
    bus.settle().await;
    let status = sub.status();
    assert_eq!((status.counts.handled, status.in_flight_bytes), (200, 0));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_not_done_for_too_long_stops_the_reading_until_it_is() {
    async fn later(State(calls): State<Arc<AtomicUsize>>) -> Verdict {
        match calls.fetch_add(1, Ordering::SeqCst) {
            0 => Verdict::Retry {
                after: Some(Duration::from_secs(600)),
            },
            _ => Verdict::Ack,
        }
    }
    let bus = test_bus("max_in_flight_age = '5m'").await;
    let sub = bus.subscribe("sub").state(Arc::new(AtomicUsize::new(0)));
    let sub = sub.on_any(later).start().await.unwrap();
    publish(&bus, "first.a", 1, 1).await;
    sleep(Duration::from_secs(290)).await;
    publish(&bus, "first.a", 10, 1).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(sub.counts().handled, 10, "others flow");
    sleep(Duration::from_secs(20)).await;
    // What was waiting for an event still gets one.
    publish(&bus, "first.a", 1, 1).await;
    sleep(Duration::from_secs(1)).await;
    let received = sub.counts().received;
    publish(&bus, "first.a", 10, 1).await;
    sleep(Duration::from_secs(200)).await;
    assert_eq!(sub.counts().received, received, "nothing is read");
    bus.settle_within("10m").await.unwrap();
    assert_eq!(sub.counts().handled, 22);
}
