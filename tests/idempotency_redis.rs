//! Idempotency with a real Redis as the store: members that race, and a server that is killed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polybus::{Bus, Config, Event, Payload, State};
use polybus_test_support::{RedisServer, unique_name};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.placed", key = customer)]
struct OrderPlaced {
    id: String,
    customer: String,
}

/// How often each event was handled, and by how many buses in all.
#[derive(Clone, Default)]
struct Effects(Arc<Mutex<BTreeMap<String, usize>>>);

impl Effects {
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn ensure_each_once(&self) {
        let effects = self.0.lock().unwrap();
        let twice: Vec<_> = effects.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }
}

async fn charge(Payload(order): Payload<OrderPlaced>, State(effects): State<Effects>) {
    *effects.0.lock().unwrap().entry(order.id).or_default() += 1;
    tokio::task::yield_now().await;
}

async fn bus(server: &RedisServer, topic: &str) -> Bus {
    let config = format!(
        r#"
        [service]
        name = "shop"
        [transports.redis]
        kind = "redis-streams"
        url = "{}"
        [[routes]]
        pattern = "order.*"
        transport = "redis"
        topic = "{topic}"
        retry = {{ max_attempts = 1000, base = "10ms", max = "100ms" }}
        on_unknown = "retry"
        [subscriptions.billing]
        group = "{topic}-billing"
        idempotency = {{ store = "redis", lease = "5s", retain = "1h" }}
        "#,
        server.url()
    );
    let config = Config::parse(&config, "test.toml").unwrap();
    Bus::builder().config(config).build().await.unwrap()
}

async fn publish(bus: &Bus, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let order = OrderPlaced {
            id: format!("o{number}"),
            customer: format!("c{}", number % 13),
        };
        let event = bus.event("order.placed").id(order.id.clone());
        let event = event.key(order.customer.clone()).json(&order).unwrap();
        event.publish().await.unwrap();
    }
}

/// Waits until every delivery of the group is settled.
async fn settled(buses: &[&Bus], deliveries: u64) {
    let done = |bus: &&Bus| {
        let status = &bus.status()[0];
        (
            status.counts.handled + status.counts.duplicates,
            status.in_flight,
        )
    };
    let waiting = async {
        loop {
            let all: Vec<_> = buses.iter().map(done).collect();
            let total: u64 = all.iter().map(|it| it.0).sum();
            if total >= deliveries && all.iter().all(|it| it.1 == 0) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = timeout(Duration::from_secs(60), waiting).await;
    let status = || buses.iter().map(|bus| bus.status()).collect::<Vec<_>>();
    assert!(ended.is_ok(), "{:#?}", status());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_copies_that_two_members_race_for_one_is_handled() {
    const EVENTS: usize = 500;
    const COPIES: usize = 3;
    let (server, topic) = (RedisServer::shared().await, unique_name("orders"));
    let (first, second) = (bus(server, &topic).await, bus(server, &topic).await);
    let effects = Effects::default();
    for bus in [&first, &second] {
        let billing = bus.subscribe("billing").state(effects.clone()).on(charge);
        billing.start().await.unwrap();
    }
    let copies = (0..COPIES).map(|copy| {
        let bus = [&first, &second][copy % 2];
        publish(bus, 0..EVENTS)
    });
    futures::future::join_all(copies).await;
    settled(&[&first, &second], (EVENTS * COPIES) as u64).await;
    assert_eq!(effects.len(), EVENTS);
    effects.ensure_each_once();
    for bus in [first, second] {
        let handled = bus.status()[0].counts.handled;
        assert!(handled > 0, "both members had a share");
        let report = bus.close("10s").await.unwrap();
        assert_eq!(report.unfinished(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_handled_once_though_the_server_is_killed_and_comes_back() {
    const EVENTS: usize = 400;
    let server = RedisServer::start().await.unwrap();
    let bus = bus(&server, "orders").await;
    let effects = Effects::default();
    let billing = bus.subscribe("billing").state(effects.clone()).on(charge);
    billing.start().await.unwrap();
    for round in 0..2 {
        let numbers = round * EVENTS..(round + 1) * EVENTS;
        let disrupting = async {
            while effects.len() < numbers.start + EVENTS / 4 {
                sleep(Duration::from_millis(1)).await;
            }
            server.kill().await.unwrap();
            server.restart().await.unwrap();
        };
        tokio::join!(publish(&bus, numbers.clone()), disrupting);
    }
    settled(&[&bus], 2 * EVENTS as u64).await;
    assert_eq!(effects.len(), 2 * EVENTS);
    effects.ensure_each_once();
    bus.close("10s").await.unwrap().into_result().unwrap();
}
