//! How a user tests a service: the same config file, every transport in memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use polybus::{Bus, Event, Payload, Result, State};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

// The service.

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", version = "1.0.0", key = user_id)]
struct UserCreated {
    user_id: String,
    email: String,
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq, Clone)]
#[event(type = "deal.opened", key = user_id)]
struct DealOpened {
    user_id: String,
}

#[derive(Clone, Default)]
struct Mailer {
    sent: Arc<Mutex<Vec<String>>>,
    opened: Arc<Notify>,
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

async fn deal_opened(Payload(_): Payload<DealOpened>, State((_, mailer)): State<(Bus, Mailer)>) {
    mailer.opened.notify_one();
}

async fn wire(bus: &Bus, mailer: Mailer) -> Result<()> {
    let state = (bus.clone(), mailer);
    bus.subscribe("deal-watch")
        .state(state)
        .on(welcome)
        .on(deal_opened)
        .start()
        .await?;
    Ok(())
}

// Its test.

#[tokio::test]
async fn a_new_user_gets_one_mail_and_a_deal() {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/polybus.toml");
    let bus = Bus::builder()
        .config_file(config)
        .in_memory()
        .build()
        .await
        .unwrap();
    let mailer = Mailer::default();
    wire(&bus, mailer.clone()).await.unwrap();

    bus.publish(UserCreated {
        user_id: "u1".into(),
        email: "a@b.c".into(),
    })
    .await
    .unwrap();
    mailer.opened.notified().await;

    let report = bus.close("5s").await.unwrap();
    assert_eq!(report.subscriptions[0].counts.handled, 2);
    assert_eq!(report.unfinished(), 0);
    report.into_result().unwrap();
    assert_eq!(*mailer.sent.lock().unwrap(), ["a@b.c"]);
}
