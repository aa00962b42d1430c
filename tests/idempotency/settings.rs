//! Settings: stores by name, keys of the user's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use polybus::config::IdempotencyConfig;
use polybus::event::Event;
use polybus::idempotency::MemoryIdempotency;
use polybus::testing::TestBus;
use polybus::{Bus, Codec, ErrorKind};

use crate::{
    Effects, MEMORY, OrderPlaced, charge, config, duplicates, publish, publish_hash, test_bus,
};

#[tokio::test(start_paused = true)]
async fn a_key_of_ones_own_says_what_is_the_same() {
    let by_hash = |event: &Event| {
        let order: OrderPlaced = Codec::decode(event).unwrap();
        order.hash
    };
    let bus = test_bus(MEMORY).await;
    let effects = Effects::default();
    let billing = bus.subscribe("billing").state(effects.clone()).on(charge);
    billing.idempotency_key(by_hash).start().await.unwrap();
    publish_hash(&bus, "o1", "c1", "same").await;
    publish_hash(&bus, "o2", "c2", "same").await;
    publish_hash(&bus, "o3", "c1", "other").await;
    bus.settle().await;
    let mut all = effects.all();
    all.sort();
    assert_eq!(all, ["other 1", "same 1"]);
    assert_eq!(duplicates(&bus), 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_key_can_not_be_made_becomes_a_dead_letter() {
    let healthy = Arc::new(AtomicBool::new(false));
    let bus = test_bus(MEMORY).await;
    let effects = Effects::default();
    let billing = bus.subscribe("billing").state(effects.clone()).on(charge);
    let key = {
        let healthy = Arc::clone(&healthy);
        move |event: &Event| {
            assert!(healthy.load(Ordering::SeqCst), "no key today");
            event.id().to_owned()
        }
    };
    billing.idempotency_key(key).start().await.unwrap();
    publish(&bus, "o1", "c1").await;
    bus.settle().await;
    bus.dead_letters().assert_len(1);
    let error = bus.status()[0].last_error.clone().unwrap().message;
    assert!(error.contains("no key today"), "{error}");
    healthy.store(true, Ordering::SeqCst);
    publish(&bus, "o2", "c1").await;
    bus.settle().await;
    assert_eq!(effects.all(), ["o2 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_is_named_by_transport_or_by_the_name_it_was_given() {
    for store in ["local", "memory", "table"] {
        let settings =
            format!("idempotency = {{ store = '{store}', lease = '10s', retain = '1d' }}");
        let builder = Bus::builder().idempotency_store("table", MemoryIdempotency::new());
        let bus = TestBus::on(builder.config(config(&settings)))
            .await
            .unwrap();
        let effects = Effects::default();
        let billing = bus.subscribe("billing").state(effects.clone()).on(charge);
        billing.start().await.unwrap();
        publish(&bus, "o1", "c1").await;
        publish(&bus, "o1", "c1").await;
        bus.settle().await;
        assert_eq!(effects.all(), ["o1 1"], "{store}");
    }
}

#[tokio::test]
async fn a_store_that_nobody_has_is_an_error_that_says_where() {
    let config = config("idempotency = { store = 'rediss' }");
    let error = Bus::builder().config(config).build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(
        text.contains("(test.toml:12) names the store `rediss`"),
        "{text}"
    );
    assert!(text.contains("neither a transport nor a store"), "{text}");
}

#[tokio::test]
async fn settings_made_in_code_are_checked_at_the_start() {
    let bus = test_bus("").await;
    let start = |settings| {
        let billing = bus
            .subscribe("billing")
            .state(Effects::default())
            .on(charge);
        billing.idempotency(settings).start()
    };
    let lease = std::time::Duration::from_millis(5);
    for (settings, what) in [
        (
            IdempotencyConfig::new("memory").with_lease(lease),
            "idempotency.lease",
        ),
        (
            IdempotencyConfig::new("memory").with_retain(lease),
            "idempotency.retain",
        ),
        (
            IdempotencyConfig::new("nowhere"),
            "names the store `nowhere`",
        ),
    ] {
        let error = start(settings).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(what), "{error}");
    }
    let keyed = bus
        .subscribe("billing")
        .state(Effects::default())
        .on(charge);
    let keyed = keyed.idempotency_key(|event| event.id().to_owned());
    let error = keyed.start().await.unwrap_err();
    assert!(error.to_string().contains("has no effect"), "{error}");
    start(IdempotencyConfig::new("memory")).await.unwrap();
}
