//! Dead letters in memory: what they hold, and what can be done with them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "dead_letters/acting.rs"]
mod acting;
#[path = "dead_letters/holding.rs"]
mod holding;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use polybus::testing::TestBus;
use polybus::{BoxError, Bus, Config, Event, RawEvent, State};

/// Events of these ids fail, until they are taken out.
type Failing = Arc<Mutex<BTreeSet<String>>>;

const GROUP: &str = "accounts";

async fn test_bus(settings: &str) -> TestBus {
    let config = format!(
        r#"
        [service]
        name = "{GROUP}"
        [transports.one]
        kind = "memory"
        [transports.two]
        kind = "memory"
        [[routes]]
        pattern = "user.*"
        transport = "one"
        topic = "users"
        [[routes]]
        pattern = "mail.*"
        transport = "two"
        topic = "mails"
        [subscriptions.mailer]
        retry.max_attempts = 2
        retry.base = "1s"
        retry.max = "1s"
        {settings}
        "#
    );
    let config = Config::parse(&config, "test.toml").unwrap();
    TestBus::on(Bus::builder().config(config)).await.unwrap()
}

/// Starts a subscription that handles what is not failing.
async fn start(bus: &Bus, failing: &Failing) {
    async fn handle(
        RawEvent(event): RawEvent,
        State(failing): State<Failing>,
    ) -> Result<(), BoxError> {
        match failing.lock().unwrap().contains(event.id()) {
            true => Err(format!("{} fails", event.id()).into()),
            false => Ok(()),
        }
    }
    let subscription = bus.subscribe("mailer").state(Arc::clone(failing));
    subscription.on_any(handle).start().await.unwrap();
}

fn failing(ids: &[&str]) -> Failing {
    Arc::new(Mutex::new(ids.iter().map(ToString::to_string).collect()))
}

async fn publish(bus: &Bus, id: &str) {
    let event = Event::builder("user.created")
        .key("k")
        .id(id)
        .data(id.to_owned());
    bus.publish(event).await.unwrap();
}

/// A bus on which events `a`, `b`, `c` failed.
async fn with_letters(failing: &Failing) -> TestBus {
    let bus = test_bus("").await;
    start(&bus, failing).await;
    for id in ["a", "b", "c", "ok"] {
        publish(&bus, id).await;
    }
    bus.settle().await;
    bus
}
