//! What a subscription that goes to another place takes with it, and what not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "shared/accounts.rs"]
mod accounts;

use polybus::testing::TestBus;
use polybus::{Bus, Context, Event, RawEvent, Start, Verdict};

use self::accounts::test_bus;

async fn publish(bus: &Bus, event_type: &'static str, id: &str) {
    let event = Event::builder(event_type).key("k").id(id);
    bus.publish(event).await.unwrap();
}

/// The events that `mailer` handled, in its order.
fn handled(bus: &TestBus) -> Vec<String> {
    let id = |it: &polybus::testing::Handling| it.event.as_ref().unwrap().id().to_owned();
    bus.handled("mailer").iter().map(id).collect()
}

#[tokio::test(start_paused = true)]
async fn every_topic_is_moved_over_all_transports_those_found_by_pattern_too() {
    let found = "
        [[routes]]
        pattern = 'log.*'
        transport = 'one'
        topic = '{type}'";
    let bus = test_bus(found).await;
    for event_type in ["log.first", "log.second"] {
        publish(&bus, event_type, event_type).await;
    }
    let mailer = bus.subscribe("mailer").on_any(async || {});
    let mailer = mailer.start().await.unwrap();
    publish(&bus, "user.created", "user").await;
    publish(&bus, "mail.sent", "mail").await;
    bus.settle().await;
    let mut once = handled(&bus);
    once.sort_unstable();
    assert_eq!(once, ["log.first", "log.second", "mail", "user"]);
    mailer.seek(Start::Beginning, "10s").await.unwrap();
    bus.settle().await;
    let mut again = handled(&bus).split_off(4);
    again.sort_unstable();
    assert_eq!(again, once);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_long_pause_to_end_comes_in_its_time() {
    async fn second_time(context: Context) -> Verdict {
        match context.attempt() {
            1 => Verdict::Retry { after: None },
            _ => Verdict::Ack,
        }
    }
    let settings = "retry.delayed = { pauses = ['1h'], after_attempts = 1 }";
    let bus = test_bus(settings).await;
    let mailer = bus.subscribe("mailer").on_any(second_time);
    let mailer = mailer.start().await.unwrap();
    publish(&bus, "user.created", "a").await;
    while mailer.counts().delayed == 0 {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    mailer.seek(Start::Now, "10s").await.unwrap();
    bus.settle_within("2h").await.unwrap();
    assert_eq!(handled(&bus), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn with_idempotency_what_is_done_is_not_handled_again() {
    let bus = test_bus("idempotency = { store = 'memory' }").await;
    let mailer = bus.subscribe("mailer").on_any(async |_: RawEvent| {});
    let mailer = mailer.start().await.unwrap();
    for id in ["a", "b"] {
        publish(&bus, "user.created", id).await;
    }
    bus.settle().await;
    mailer.seek(Start::Beginning, "10s").await.unwrap();
    bus.settle().await;
    assert_eq!(handled(&bus), ["a", "b"]);
    assert_eq!(mailer.counts().duplicates, 2);
}
