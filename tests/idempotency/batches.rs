//! Batch handlers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use polybus::idempotency::Claimed;
use polybus::{Batch, State, Verdict};
use tokio::time::sleep;

use crate::store::Probe;
use crate::{Effects, MEMORY, OrderPlaced, ask, duplicates, publish, test_bus};

async fn charge_all(batch: Batch<OrderPlaced>, State(effects): State<Effects>) {
    let orders: Vec<&str> = batch.iter().map(|it| it.payload.hash.as_str()).collect();
    effects.note(orders.join(" "));
}

#[tokio::test(start_paused = true)]
async fn a_batch_holds_no_copies() {
    let bus = test_bus(MEMORY).await;
    let effects = Effects::default();
    let billing = bus.subscribe("billing").state(effects.clone());
    let billing = billing.on_batch(charge_all).batch(3, "50ms");
    billing.start().await.unwrap();
    for id in ["o1", "o1", "o2", "o3", "o2", "o4"] {
        publish(&bus, id, "c1").await;
    }
    bus.settle().await;
    let all = effects.all().join(" ");
    let mut handled: Vec<&str> = all.split(' ').collect();
    let in_order = handled.clone();
    handled.sort_unstable();
    assert_eq!(handled, ["o1", "o2", "o3", "o4"]);
    assert_eq!(in_order, handled, "the order of the key holds");
    assert_eq!(duplicates(&bus), 2);
}

#[tokio::test(start_paused = true)]
async fn entries_that_come_again_keep_their_claims_and_the_others_are_done() {
    async fn first_fails(
        batch: Batch<OrderPlaced>,
        State(effects): State<Effects>,
    ) -> Vec<Verdict> {
        let verdict = |it: &polybus::Entry<OrderPlaced>| {
            effects.note(format!("{} {}", it.payload.hash, it.context.attempt()));
            match (it.payload.hash.as_str(), it.context.attempt()) {
                ("o1", 1) => Verdict::Retry { after: None },
                _ => Verdict::Ack,
            }
        };
        batch.iter().map(verdict).collect()
    }
    let (store, bus) = (Arc::new(Probe::default()), test_bus("").await);
    let effects = Effects::default();
    let billing = bus.subscribe("billing").state(effects.clone());
    let billing = billing.on_batch(first_fails).batch(2, "50ms");
    let billing = billing.idempotency_store(Arc::clone(&store));
    billing.start().await.unwrap();
    publish(&bus, "o1", "c1").await;
    publish(&bus, "o2", "c2").await;
    sleep(Duration::from_millis(200)).await;
    assert!(matches!(ask(&store, "o1").await, Claimed::Busy(_)));
    assert_eq!(ask(&store, "o2").await, Claimed::Done);
    bus.settle().await;
    assert_eq!(ask(&store, "o1").await, Claimed::Done);
    assert_eq!(effects.all(), ["o1 1", "o2 1", "o1 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_claims_ran_out_while_it_was_collected_is_claimed_anew() {
    let bus = test_bus("idempotency = { store = 'memory', lease = '3s' }").await;
    let store = Arc::new(Probe::default());
    let effects = Effects::default();
    let billing = bus.subscribe("billing").state(effects.clone());
    let billing = billing.on_batch(charge_all).batch(10, "20s");
    let billing = billing.idempotency_store(Arc::clone(&store));
    billing.start().await.unwrap();
    for id in ["o1", "o2", "o3"] {
        publish(&bus, id, "c1").await;
    }
    sleep(Duration::from_secs(1)).await;
    store.down.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(25)).await;
    assert!(effects.all().is_empty(), "its leases are over");
    store.set_down(false);
    bus.settle().await;
    assert_eq!(effects.all().join(" "), "o1 o2 o3");
    bus.handled("billing").assert_len(3);
}
