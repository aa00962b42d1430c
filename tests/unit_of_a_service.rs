//! How a user tests a service: the same config file, every transport in memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use polybus::{Bus, Event, Payload, Result, State, TestBus};
use serde::{Deserialize, Serialize};

// The service.

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", version = "1.0.0", key = user_id)]
struct UserCreated {
    user_id: String,
    email: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "deal.opened", key = user_id)]
struct DealOpened {
    user_id: String,
}

#[derive(Clone, Default)]
struct Mailer {
    sent: Arc<Mutex<Vec<String>>>,
}

/// A new user gets a mail and a first deal.
async fn welcome(
    Payload(user): Payload<UserCreated>,
    State((bus, mailer)): State<(Bus, Mailer)>,
) -> Result<()> {
    mailer.sent.lock().unwrap().push(user.email);
    bus.publish(DealOpened {
        user_id: user.user_id,
    })
    .await?;
    Ok(())
}

async fn wire(bus: &Bus, mailer: Mailer) -> Result<()> {
    let state = (bus.clone(), mailer);
    bus.subscribe("deal-watch")
        .state(state)
        .on(welcome)
        .start()
        .await?;
    Ok(())
}

// Its test.

#[tokio::test(start_paused = true)]
async fn a_new_user_gets_one_mail_and_a_deal() {
    let bus = TestBus::from_file(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/polybus.toml"
    ));
    let mailer = Mailer::default();
    wire(&bus, mailer.clone()).await.unwrap();

    bus.publish(UserCreated {
        user_id: "u1".into(),
        email: "a@b.c".into(),
    })
    .await
    .unwrap();
    bus.settle().await;

    assert_eq!(*mailer.sent.lock().unwrap(), ["a@b.c"]);
    assert_eq!(bus.published::<DealOpened>().only().user_id, "u1");
    bus.dead_letters().assert_empty();
}
