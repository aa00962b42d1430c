//! Dead letters in memory: what they hold, and what can be done with them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "shared/accounts.rs"]
mod accounts;
#[path = "dead_letters/acting.rs"]
mod acting;
#[path = "dead_letters/holding.rs"]
mod holding;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use polybus::testing::TestBus;
use polybus::{BoxError, Bus, Event, RawEvent, State};

use self::accounts::GROUP;

/// Events of these ids fail, until they are taken out.
type Failing = Arc<Mutex<BTreeSet<String>>>;

async fn test_bus(settings: &str) -> TestBus {
    let retry = "retry.max_attempts = 2\nretry.base = '1s'\nretry.max = '1s'\n";
    accounts::test_bus(&format!("{retry}{settings}")).await
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
