//! How subscriptions are doing, and pausing them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use polybus::testing::{Fault, TestBus};
use polybus::{Bus, Config, Event, Payload, Permanent, State, Subscription, SubscriptionState};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::sleep;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", key = id)]
struct UserCreated {
    id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.left", key = id)]
struct UserLeft {
    id: String,
}

fn user(id: &str) -> UserCreated {
    UserCreated { id: id.into() }
}

async fn test_bus(settings: &str) -> TestBus {
    let config = format!(
        r#"
        [service]
        name = "accounts"
        [transports.local]
        kind = "memory"
        [[routes]]
        pattern = "user.*"
        transport = "local"
        topic = "users"
        [subscriptions.sub]
        {settings}
        "#
    );
    let config = Config::parse(&config, "test.toml").unwrap();
    TestBus::on(Bus::builder().config(config)).await.unwrap()
}

type Gate = Arc<Semaphore>;

/// Handles an event for each permit of the gate.
async fn pass(_: Payload<UserCreated>, State(gate): State<Gate>) {
    gate.acquire().await.unwrap().forget();
}

async fn start(bus: &Bus, permits: usize) -> (Subscription, Gate) {
    let gate = Arc::new(Semaphore::new(permits));
    let subscription = bus.subscribe("sub").state(Arc::clone(&gate)).on(pass);
    (subscription.start().await.unwrap(), gate)
}

#[tokio::test(start_paused = true)]
async fn a_subscription_says_what_is_in_flight_and_since_when() {
    let bus = test_bus("").await;
    let (subscription, gate) = start(&bus, 0).await;
    let status = subscription.status();
    assert_eq!(
        (status.name.as_str(), status.group.as_str()),
        ("sub", "accounts")
    );
    assert_eq!(status.state, SubscriptionState::Running);
    assert_eq!((status.in_flight, status.oldest), (0, None));

    bus.publish(user("u1")).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    bus.publish(user("u2")).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    let status = &bus.status()[0];
    assert_eq!(status.in_flight, 2);
    assert_eq!(status.oldest.unwrap().as_secs(), 15);

    gate.add_permits(1);
    sleep(Duration::from_secs(1)).await;
    let status = subscription.status();
    assert_eq!((status.in_flight, status.counts.handled), (1, 1));
    assert_eq!(status.oldest.unwrap().as_secs(), 6);

    gate.add_permits(1);
    bus.settle().await;
    sleep(Duration::from_secs(1)).await;
    let status = subscription.status();
    assert_eq!((status.in_flight, status.oldest), (0, None));
    assert_eq!(status.last_error, None);
}

#[tokio::test(start_paused = true)]
async fn a_paused_subscription_finishes_what_it_has_and_reads_nothing() {
    let bus = test_bus("").await;
    let (subscription, gate) = start(&bus, 0).await;
    bus.publish(user("u1")).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    subscription.pause();
    bus.publish(user("u2")).await.unwrap();
    gate.add_permits(10);
    let error = bus.settle_within("10s").await.unwrap_err();
    assert!(error.to_string().contains("`sub`: Paused"), "{error}");
    let status = subscription.status();
    assert_eq!(status.state, SubscriptionState::Paused);
    assert_eq!((status.counts.received, status.counts.handled), (1, 1));

    subscription.resume();
    bus.settle().await;
    assert_eq!(subscription.status().state, SubscriptionState::Running);
    assert_eq!(subscription.counts().handled, 2);
}

#[tokio::test(start_paused = true)]
async fn a_pause_and_a_resume_at_once_change_nothing() {
    let bus = test_bus("").await;
    let (subscription, _gate) = start(&bus, 100).await;
    for number in 0..100 {
        bus.publish(user("u1")).await.unwrap();
        subscription.pause();
        if number % 3 == 0 {
            tokio::task::yield_now().await;
        }
        subscription.resume();
    }
    bus.settle().await;
    assert_eq!(subscription.counts().handled, 100);
    assert_eq!(subscription.counts().received, 100, "nothing came twice");
}

#[tokio::test(start_paused = true)]
async fn a_paused_subscription_stops_like_any_other() {
    let bus = test_bus("").await;
    let (subscription, _gate) = start(&bus, 0).await;
    subscription.pause();
    bus.publish(user("u1")).await.unwrap();
    bus.close("10s").await.unwrap().into_result().unwrap();
    assert_eq!(subscription.status().state, SubscriptionState::Ended);
}

#[tokio::test(start_paused = true)]
async fn a_stop_shows_until_what_runs_is_done() {
    let bus = test_bus("").await;
    let (subscription, gate) = start(&bus, 0).await;
    bus.publish(user("u1")).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let closing = bus.close("10s");
    let watching = async {
        sleep(Duration::from_secs(2)).await;
        assert_eq!(subscription.status().state, SubscriptionState::Stopping);
        gate.add_permits(1);
    };
    let (report, ()) = tokio::join!(closing, watching);
    assert_eq!(report.unwrap().unfinished(), 0);
    let status = subscription.status();
    assert_eq!(
        (status.state, status.in_flight),
        (SubscriptionState::Ended, 0)
    );
    assert!(bus.status().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_stops_by_itself_has_failed() {
    let bus = test_bus("unhandled = 'stop'").await;
    let (subscription, _gate) = start(&bus, 0).await;
    bus.publish(UserLeft { id: "u1".into() }).await.unwrap();
    subscription.ended().await;
    let status = &bus.status()[0];
    assert_eq!(status.state, SubscriptionState::Failed);
    let message = &status.last_error.as_ref().unwrap().message;
    assert!(message.contains("user.left"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn the_last_error_is_that_of_a_handler_or_of_putting_away() {
    async fn refuse(_: Payload<UserCreated>) -> Result<(), Permanent> {
        Err(Permanent::new("no such country"))
    }
    let bus = test_bus("").await;
    let subscription = bus.subscribe("sub").on(refuse).start().await.unwrap();
    bus.publish(user("u1")).await.unwrap();
    bus.settle().await;
    let last_error = || subscription.status().last_error.unwrap().message;
    assert_eq!(last_error(), "no such country");
    bus.inject(Fault::reject_dead_letter("*").times(1000));
    bus.publish(user("u2")).await.unwrap();
    assert!(bus.settle_within("10s").await.is_err());
    assert!(last_error().contains("injected"), "{}", last_error());
    assert_eq!(subscription.status().state, SubscriptionState::Running);
}
