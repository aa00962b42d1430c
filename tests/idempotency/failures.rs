//! Handlers that fail, stores that are away, processes that die.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use polybus::idempotency::{Claim, Claimed, Fence, IdempotencyStore, MemoryIdempotency};
use polybus::memory::MemoryTransport;
use polybus::testing::TestBus;
use polybus::transport::{Admin, DynTransport, Transport, TransportConfig, TransportFactory};
use polybus::{BoxError, Bus, Context, Payload, Permanent, Result, State, Topic};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::store::Probe;
use crate::{Effects, MEMORY, OrderPlaced, ask, charge, config, key, publish, test_bus};

#[tokio::test(start_paused = true)]
async fn an_event_that_failed_is_handled_again_until_it_succeeds() {
    async fn second_time_lucky(
        _: Payload<OrderPlaced>,
        context: Context,
        State(effects): State<Effects>,
    ) -> Result<(), BoxError> {
        effects.note(format!("{}", context.attempt()));
        match context.attempt() {
            1 => Err("not yet".into()),
            _ => Ok(()),
        }
    }
    let bus = test_bus(MEMORY).await;
    let effects = Effects::default();
    let billing = bus.subscribe("billing").state(effects.clone());
    billing.on(second_time_lucky).start().await.unwrap();
    publish(&bus, "o1", "c1").await;
    publish(&bus, "o1", "c1").await;
    bus.settle().await;
    assert_eq!(effects.all(), ["1", "2"]);
    let counts = bus.status()[0].counts;
    assert_eq!((counts.handled, counts.duplicates), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_became_a_dead_letter_is_handled_when_it_comes_again() {
    async fn first_time_unlucky(
        _: Payload<OrderPlaced>,
        State(calls): State<Arc<AtomicUsize>>,
    ) -> Result<(), BoxError> {
        match calls.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Permanent::new("no such customer").into()),
            _ => Ok(()),
        }
    }
    let bus = test_bus(MEMORY).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let billing = bus.subscribe("billing").state(Arc::clone(&calls));
    billing.on(first_time_unlucky).start().await.unwrap();
    publish(&bus, "o1", "c1").await;
    bus.settle().await;
    bus.dead_letters().assert_len(1);
    publish(&bus, "o1", "c1").await;
    bus.settle().await;
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    bus.handled("billing").assert_len(1);
}

#[tokio::test(start_paused = true)]
async fn without_its_store_nothing_is_handled_and_afterwards_everything() {
    let (store, bus) = (Arc::new(Probe::default()), test_bus("").await);
    let effects = Effects::default();
    let billing = bus.subscribe("billing").state(effects.clone()).on(charge);
    let billing = billing.idempotency_store(Arc::clone(&store));
    let billing = billing.start().await.unwrap();
    store.set_down(true);
    for number in 0..10 {
        publish(&bus, &format!("o{number}"), "c1").await;
    }
    sleep(Duration::from_secs(120)).await;
    assert!(effects.all().is_empty());
    let status = billing.status();
    assert_eq!((status.in_flight, status.counts.retried), (10, 0));
    let error = status.last_error.unwrap().message;
    assert!(error.contains("the store is down"), "{error}");
    assert!(
        store.calls().claims < 60,
        "it backs off: {:?}",
        store.calls()
    );
    store.set_down(false);
    bus.settle().await;
    assert_eq!(effects.all().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail_beside_others_lose_nothing_and_repeat_nothing() {
    let (store, bus) = (Arc::new(Probe::default()), test_bus("").await);
    let effects = Effects::default();
    let billing = bus.subscribe("billing").state(effects.clone()).on(charge);
    let billing = billing.idempotency_store(Arc::clone(&store));
    let billing = billing.start().await.unwrap();
    billing.pause();
    let expected: Vec<String> = (0..2_000).map(|number| format!("{number:04} 1")).collect();
    for event in &expected {
        let id = &event[..4];
        publish(&bus, id, &id[2..]).await;
    }
    store.fails_by_turns.store(true, Ordering::SeqCst);
    billing.resume();
    bus.settle().await;
    store.fails_by_turns.store(false, Ordering::SeqCst);
    let handled = effects.all();
    for customer in 0..100 {
        let of_customer = |event: &&String| event[2..4] == format!("{customer:02}");
        let handled: Vec<&String> = handled.iter().filter(of_customer).collect();
        let expected: Vec<&String> = expected.iter().filter(of_customer).collect();
        assert_eq!(handled, expected, "each once, in order");
    }
    for event in &expected {
        assert_eq!(ask(&store, &event[..4]).await, Claimed::Done);
    }
}

#[tokio::test(start_paused = true)]
async fn one_call_that_hangs_holds_up_only_what_it_is_about() {
    let (store, bus) = (Arc::new(Probe::default()), test_bus("").await);
    let effects = Effects::default();
    let billing = bus.subscribe("billing").state(effects.clone()).on(charge);
    let billing = billing.idempotency_store(Arc::clone(&store));
    let billing = billing.start().await.unwrap();
    billing.pause();
    for number in 0..600 {
        let id = number.to_string();
        publish(&bus, &id, &id).await;
    }
    store.claim_hangs.store(true, Ordering::SeqCst);
    billing.resume();
    sleep(Duration::from_secs(5)).await;
    let handled = effects.all().len();
    assert!(handled > 0 && handled < 600, "{handled}");
    bus.settle().await;
    assert_eq!(effects.all().len(), 600, "it is made again after a while");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_settled_before_the_store_knows_that_it_was_handled() {
    let (store, bus) = (Arc::new(Probe::default()), test_bus("").await);
    let effects = Effects::default();
    let billing = bus.subscribe("billing").state(effects.clone()).on(charge);
    let billing = billing.idempotency_store(Arc::clone(&store));
    billing.start().await.unwrap();
    store.hangs.store(true, Ordering::SeqCst);
    publish(&bus, "o1", "c1").await;
    publish(&bus, "o2", "c1").await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(effects.all(), ["o1 1", "o2 1"], "the lane goes on");
    let admin = bus.transport("local").unwrap().admin();
    let pending = async || admin.lag("shop", &[Topic::new("orders")]).await.unwrap()[0].pending;
    assert_eq!(pending().await, 2);
    store.hangs.store(false, Ordering::SeqCst);
    bus.settle().await;
    assert_eq!(pending().await, 0);
    assert_eq!(ask(&store, "o1").await, Claimed::Done);
}

#[tokio::test(start_paused = true)]
async fn what_did_not_start_is_released_at_the_stop() {
    async fn wait(_: Payload<OrderPlaced>, State(gate): State<Arc<Semaphore>>) {
        gate.acquire().await.unwrap().forget();
    }
    let store = Arc::new(MemoryIdempotency::new());
    let bus = test_bus("").await;
    let gate = Arc::new(Semaphore::new(0));
    let billing = bus.subscribe("billing").state(Arc::clone(&gate)).on(wait);
    let billing = billing.idempotency_store(Arc::clone(&store));
    billing.start().await.unwrap();
    for id in ["o1", "o2", "o3"] {
        publish(&bus, id, "c1").await;
    }
    sleep(Duration::from_secs(1)).await;
    for id in ["o1", "o2", "o3"] {
        assert!(matches!(ask(&store, id).await, Claimed::Busy(_)), "{id}");
    }
    gate.add_permits(1);
    let report = bus.close("10s").await.unwrap();
    assert_eq!(report.unfinished(), 2);
    assert_eq!(ask(&store, "o1").await, Claimed::Done);
    for id in ["o2", "o3"] {
        assert_eq!(ask(&store, id).await, Claimed::Claimed, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_in_time_without_the_store() {
    let (store, bus) = (Arc::new(Probe::default()), test_bus("").await);
    let effects = Effects::default();
    let billing = bus.subscribe("billing").state(effects.clone()).on(charge);
    let billing = billing.idempotency_store(Arc::clone(&store));
    billing.start().await.unwrap();
    store.hangs.store(true, Ordering::SeqCst);
    publish(&bus, "o1", "c1").await;
    sleep(Duration::from_secs(1)).await;
    store.set_down(true);
    publish(&bus, "o2", "c1").await;
    sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    let report = bus.close("10s").await.unwrap();
    assert!(started.elapsed() <= Duration::from_secs(10));
    assert_eq!(report.unfinished(), 1, "what was not handled is given back");
    let error = &report.subscriptions[0].error;
    assert!(error.is_none(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn who_lost_a_claim_while_handling_is_counted() {
    async fn hang(_: Payload<OrderPlaced>, State(gate): State<Arc<Semaphore>>) {
        gate.acquire().await.unwrap().forget();
    }
    let (store, bus) = (Arc::new(Probe::default()), test_bus("").await);
    let gate = Arc::new(Semaphore::new(0));
    let billing = bus.subscribe("billing").state(Arc::clone(&gate)).on(hang);
    let billing = billing.idempotency_store(Arc::clone(&store));
    let billing = billing.start().await.unwrap();
    publish(&bus, "o1", "c1").await;
    sleep(Duration::from_secs(1)).await;
    store.set_down(true);
    sleep(Duration::from_secs(60)).await;
    store.set_down(false);
    let other = [Claim::new(key("o1"), Fence::unique())];
    let taken = store.claim(&other, Duration::from_secs(3_600)).await;
    assert_eq!(taken.unwrap(), [Claimed::Claimed], "the lease ran out");
    gate.add_permits(1);
    bus.settle().await;
    let counts = billing.counts();
    assert_eq!((counts.handled, counts.claims_lost), (1, 1));
    let held = store.renew(&other, Duration::from_secs(1)).await.unwrap();
    assert_eq!(held, [true], "nothing of the other one's was changed");
}

/// Gives every bus the same broker.
struct SharedFactory(MemoryTransport);

#[async_trait]
impl TransportFactory for SharedFactory {
    fn kind(&self) -> &str {
        "memory"
    }

    async fn connect(&self, _: TransportConfig) -> Result<DynTransport> {
        Ok(DynTransport::new(self.0.clone()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_effect_and_mark_repeats_the_effect_after_the_lease() {
    let (broker, store) = (MemoryTransport::new(), Arc::new(Probe::default()));
    let effects = Effects::default();
    let process = async || {
        let builder = Bus::builder().register(SharedFactory(broker.clone()));
        let bus = TestBus::on(builder.config(config(""))).await.unwrap();
        let billing = bus.subscribe("billing").state(effects.clone()).on(charge);
        let billing = billing.idempotency_store(Arc::clone(&store));
        billing.start().await.unwrap();
        bus
    };
    store.hangs.store(true, Ordering::SeqCst);
    let first = process().await;
    publish(&first, "o1", "c1").await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(effects.all(), ["o1 1"]);
    drop(first);

    store.hangs.store(false, Ordering::SeqCst);
    let second = process().await;
    sleep(Duration::from_secs(28)).await;
    assert_eq!(effects.all(), ["o1 1"], "the lease is 30 s");
    second.settle().await;
    assert_eq!(effects.all().len(), 2);
    assert_eq!(ask(&store, "o1").await, Claimed::Done);
}
