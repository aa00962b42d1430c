//! Handlers that take too long.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use polybus::testing::TestBus;
use polybus::{Batch, Bus, Config, Context, Event, Payload};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", key = id)]
struct UserCreated {
    id: String,
}

fn user(id: &str) -> UserCreated {
    UserCreated { id: id.into() }
}

async fn test_bus(settings: &str) -> TestBus {
    let config = format!(
        r#"
        [service]
        name = "test"
        [transports.local]
        kind = "memory"
        [[routes]]
        pattern = "user.*"
        transport = "local"
        topic = "users"
        [subscriptions.slow]
        retry = {{ max_attempts = 3, base = "1s", max = "10s" }}
        {settings}
        "#
    );
    let config = Config::parse(&config, "test.toml").unwrap();
    TestBus::on(Bus::builder().config(config)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_given_up_and_tried_again() {
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
    async fn hang_once(Payload(user): Payload<UserCreated>, context: Context) {
        let _guard = Guard;
        let left = context.deadline().unwrap() - Instant::now();
        assert_eq!(left, Duration::from_secs(5));
        if user.id == "u1" && context.attempt() == 1 {
            std::future::pending::<()>().await;
        }
    }
    let bus = test_bus("handler_timeout = '5s'").await;
    bus.subscribe("slow").on(hang_once).start().await.unwrap();
    bus.publish(user("u1")).await.unwrap();
    bus.publish(user("u2")).await.unwrap();
    bus.settle().await;
    assert_eq!(bus.retried("slow").only().key(), Some("u1"));
    let handled: Vec<_> = bus
        .handled("slow")
        .into_iter()
        .map(|it| it.attempt)
        .collect();
    assert_eq!(handled, [1, 2], "the other key did not wait");
    assert_eq!(DROPPED.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn one_that_always_hangs_is_put_away() {
    async fn hang(_: Payload<UserCreated>) {
        std::future::pending::<()>().await;
    }
    let bus = test_bus("handler_timeout = '5s'").await;
    bus.subscribe("slow").on(hang).start().await.unwrap();
    bus.publish(user("u1")).await.unwrap();
    bus.settle().await;
    let letters = bus.dead_letters();
    assert!(letters.only().reason().contains("within 5s"), "{letters}");
    assert_eq!(letters.only().attempts(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_hangs_is_given_up_as_a_whole() {
    async fn hang(batch: Batch<UserCreated>) {
        if batch[0].context.attempt() == 1 {
            std::future::pending::<()>().await;
        }
    }
    let bus = test_bus("handler_timeout = '5s'").await;
    let subscription = bus.subscribe("slow").on_batch(hang).batch(2, "50ms");
    subscription.start().await.unwrap();
    bus.publish(user("u1")).await.unwrap();
    bus.publish(user("u1")).await.unwrap();
    bus.settle().await;
    bus.retried("slow").assert_len(2);
    bus.handled("slow").assert_len(2);
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_a_handler_takes_its_time() {
    async fn slow(_: Payload<UserCreated>, context: Context) {
        assert!(context.deadline().is_none());
        sleep(Duration::from_secs(3000)).await;
    }
    let bus = test_bus("").await;
    bus.subscribe("slow").on(slow).start().await.unwrap();
    bus.publish(user("u1")).await.unwrap();
    bus.settle_within("2h").await.unwrap();
    assert_eq!(bus.handled("slow").only().attempt, 1);
}
