//! An event that comes twice is handled once: what subscriptions do with claims, on the memory
//! transport and, in `redis`, with two buses on one server.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batches;
mod failures;
mod settings;
mod store;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use polybus::idempotency::{Claim, Claimed, Fence, IdempotencyStore, MemoryIdempotency};
use polybus::testing::{Progress, TestBus};
use polybus::{BoxError, Bus, Config, Context, Event, Payload, State};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use store::Probe;

#[derive(Event, Serialize, Deserialize, Debug, Clone)]
#[event(type = "order.placed", key = customer)]
struct OrderPlaced {
    customer: String,
    hash: String,
}

/// What a handler did: event and attempt.
#[derive(Clone, Default)]
struct Effects(Arc<Mutex<Vec<String>>>);

impl Effects {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn config(settings: &str) -> Config {
    let config = format!(
        r#"
        [service]
        name = "shop"
        [transports.local]
        kind = "memory"
        [[routes]]
        pattern = "*"
        transport = "local"
        topic = "orders"
        [subscriptions.billing]
        retry = {{ max_attempts = 3, base = "1s", max = "10s" }}
        {settings}
        "#
    );
    Config::parse(&config, "test.toml").unwrap()
}

async fn test_bus(settings: &str) -> TestBus {
    TestBus::on(Bus::builder().config(config(settings)))
        .await
        .unwrap()
}

const MEMORY: &str = "idempotency = { store = 'memory' }";

/// Publishes an event of this id and customer.
async fn publish(bus: &Bus, id: &str, customer: &str) {
    publish_hash(bus, id, customer, id).await;
}

async fn publish_hash(bus: &Bus, id: &str, customer: &str, hash: &str) {
    let order = OrderPlaced {
        customer: customer.into(),
        hash: hash.into(),
    };
    let event = bus.event("order.placed").id(id).key(customer);
    event.json(&order).unwrap().publish().await.unwrap();
}

async fn charge(
    Payload(order): Payload<OrderPlaced>,
    context: Context,
    State(effects): State<Effects>,
) {
    effects.note(format!("{} {}", order.hash, context.attempt()));
}

async fn start_charging(bus: &Bus) -> Effects {
    let effects = Effects::default();
    let billing = bus.subscribe("billing").state(effects.clone()).on(charge);
    billing.start().await.unwrap();
    effects
}

fn duplicates(bus: &Bus) -> u64 {
    bus.status()[0].counts.duplicates
}

/// The key that the runtime makes for an event of the subscription.
fn key(id: &str) -> String {
    format!("shop:order.placed:shop:{id}")
}

async fn ask(store: &impl IdempotencyStore, id: &str) -> Claimed {
    let claim = Claim::new(key(id), Fence::unique());
    let answer = store
        .claim(std::slice::from_ref(&claim), Duration::from_secs(60))
        .await;
    let answer = answer.unwrap()[0];
    if answer == Claimed::Claimed {
        store.release(&[claim]).await.unwrap();
    }
    answer
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_acknowledged_and_counted() {
    let bus = test_bus(MEMORY).await;
    let effects = start_charging(&bus).await;
    for id in ["o1", "o2", "o1", "o1"] {
        publish(&bus, id, "c1").await;
    }
    bus.settle().await;
    publish(&bus, "o2", "c1").await;
    bus.settle().await;
    assert_eq!(effects.all(), ["o1 1", "o2 1"]);
    assert_eq!(duplicates(&bus), 3);
    bus.handled("billing").assert_len(2);
    let history = bus.history("billing");
    let skipped = history
        .iter()
        .filter(|it| it.progress == Progress::Duplicate);
    assert_eq!(skipped.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn copies_of_different_keys_that_come_together_are_handled_once() {
    let bus = test_bus(MEMORY).await;
    let effects = start_charging(&bus).await;
    for customer in ["c1", "c2", "c3", "c4"] {
        publish(&bus, "o1", customer).await;
    }
    bus.settle().await;
    assert_eq!(effects.all(), ["o1 1"]);
    assert_eq!(duplicates(&bus), 3);
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_handled_again_after_the_retention() {
    let bus = test_bus("idempotency = { store = 'memory', retain = '1h' }").await;
    let effects = start_charging(&bus).await;
    publish(&bus, "o1", "c1").await;
    bus.settle().await;
    sleep(Duration::from_secs(3_601)).await;
    publish(&bus, "o1", "c1").await;
    bus.settle().await;
    assert_eq!(effects.all(), ["o1 1", "o1 1"]);
}

#[tokio::test(start_paused = true)]
async fn every_group_and_every_handler_handles_an_event_once() {
    async fn any(State(effects): State<Effects>, context: Context) {
        effects.note(context.subscription());
    }
    let bus = test_bus("").await;
    let (effects, store) = (Effects::default(), Arc::new(MemoryIdempotency::new()));
    for name in ["billing", "shipping"] {
        let subscription = bus.subscribe(name).group(name).state(effects.clone());
        let subscription = subscription
            .on_any(any)
            .idempotency_store(Arc::clone(&store));
        subscription.start().await.unwrap();
    }
    for _ in 0..2 {
        publish(&bus, "o1", "c1").await;
    }
    bus.settle().await;
    let mut all = effects.all();
    all.sort();
    assert_eq!(all, ["billing", "shipping"]);
}

#[tokio::test(start_paused = true)]
async fn what_another_one_has_comes_back_after_its_lease_without_an_attempt() {
    let store = Arc::new(MemoryIdempotency::new());
    let bus = test_bus("").await;
    let effects = Effects::default();
    let billing = bus.subscribe("billing").state(effects.clone()).on(charge);
    let billing = billing.idempotency_store(Arc::clone(&store));
    billing.start().await.unwrap();
    let others = [Claim::new(key("o1"), Fence::unique())];
    store.claim(&others, Duration::from_secs(20)).await.unwrap();
    let started = Instant::now();
    publish(&bus, "o1", "c1").await;
    publish(&bus, "o2", "c1").await;
    publish(&bus, "o3", "c2").await;
    sleep(Duration::from_secs(19)).await;
    assert_eq!(effects.all(), ["o3 1"], "the lane waits, others do not");
    bus.settle().await;
    assert!(started.elapsed() >= Duration::from_secs(20));
    assert_eq!(effects.all(), ["o3 1", "o1 1", "o2 1"]);
    let counts = bus.status()[0].counts;
    assert_eq!((counts.retried, counts.duplicates), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_renewed_while_the_handler_runs_and_retries_wait() {
    async fn slow(
        _: Payload<OrderPlaced>,
        context: Context,
        State(effects): State<Effects>,
    ) -> Result<(), BoxError> {
        sleep(Duration::from_secs(100)).await;
        effects.note(format!("{}", context.attempt()));
        match context.attempt() {
            1 => Err("not yet".into()),
            _ => Ok(()),
        }
    }
    let store = Arc::new(MemoryIdempotency::new());
    let bus = test_bus("idempotency = { store = 'memory', lease = '3s' }").await;
    let effects = Effects::default();
    let billing = bus.subscribe("billing").state(effects.clone()).on(slow);
    let billing = billing.idempotency_store(Arc::clone(&store));
    billing.start().await.unwrap();
    publish(&bus, "o1", "c1").await;
    while effects.all().len() < 2 {
        sleep(Duration::from_secs(1)).await;
        let answer = ask(&store, "o1").await;
        let held = matches!(answer, Claimed::Busy(_)) || effects.all().len() == 2;
        assert!(held, "{answer:?} after {:?}", effects.all());
    }
    bus.settle().await;
    assert_eq!(ask(&store, "o1").await, Claimed::Done);
    assert_eq!(effects.all(), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn claims_cost_a_call_for_many_events_and_not_for_each() {
    const EVENTS: usize = 2_000;
    let (store, bus) = (Arc::new(Probe::default()), test_bus("").await);
    let effects = Effects::default();
    let billing = bus.subscribe("billing").state(effects.clone()).on(charge);
    let orders = (0..EVENTS).map(|number| OrderPlaced {
        customer: format!("c{}", number % 7),
        hash: number.to_string(),
    });
    for outcome in bus.publish_all(orders).await {
        outcome.into_result().unwrap();
    }
    let billing = billing.idempotency_store(Arc::clone(&store));
    billing.start().await.unwrap();
    bus.settle().await;
    assert_eq!(effects.all().len(), EVENTS);
    let calls = store.calls();
    assert!(calls.claims < 40, "{calls:?} for {EVENTS} events");
    assert!(calls.completes < 80, "{calls:?} for {EVENTS} events");
}
