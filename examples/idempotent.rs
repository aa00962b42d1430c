//! An event that comes twice is handled once.
//!
//! A shop publishes an order, is not sure that it arrived, and publishes it again. Then a service
//! sends the same order under another id: a key of one's own finds that out, too.
//!
//! ```sh
//! cargo run --example idempotent                                  # in memory
//! ./scripts/servers up
//! cargo run --features full --example idempotent examples/polybus.toml
//! ./scripts/servers down
//! ```
//!
//! With several processes the store is a server's: `idempotency = { store = "redis" }`, where
//! `redis` is a transport of kind `redis-streams`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use polybus::{Bus, Codec, Config, Event, Payload, State, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.placed", key = order)]
struct OrderPlaced {
    order: String,
    cents: u32,
}

/// Without a server.
const IN_MEMORY: &str = r#"
    [service]
    name = "shop"

    [transports.local]
    kind = "memory"

    [[routes]]
    pattern   = "order.*"
    transport = "local"
    topic     = "orders"

    [subscriptions.billing]
    idempotency = { store = "memory", lease = "30s", retain = "7d" }

    [subscriptions.books]
    group       = "books"
    idempotency = { store = "memory" }
"#;

type Cents = Arc<AtomicU32>;

async fn charge(Payload(order): Payload<OrderPlaced>, State(charged): State<Cents>) {
    println!("charging {} for {} cents", order.order, order.cents);
    charged.fetch_add(order.cents, Ordering::Relaxed);
}

async fn place(bus: &Bus, number: &str, attempt: u32) -> polybus::Result<()> {
    let order = OrderPlaced {
        order: number.to_owned(),
        cents: 1_250,
    };
    let id = format!("{number}/attempt-{attempt}");
    let event = bus.event("order.placed").id(id).key(number.to_owned());
    event.json(&order)?.publish().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> polybus::Result<()> {
    let config = match std::env::args().nth(1) {
        Some(path) => Config::from_file(path)?,
        None => Config::parse(IN_MEMORY, "in memory")?,
    };
    let bus = Bus::builder().config(config).build().await?;
    bus.topics().ensure().await?;
    let (by_id, by_order) = (Cents::default(), Cents::default());
    let billing = bus.subscribe("billing").state(Arc::clone(&by_id));
    let billing = billing.on(charge).start().await?;
    let order = |event: &polybus::event::Event| {
        let order: Option<OrderPlaced> = Codec::decode(event).ok();
        order.map_or_else(|| event.id().to_owned(), |order| order.order)
    };
    let books = bus.subscribe("books").state(Arc::clone(&by_order));
    let books = books.on(charge).idempotency_key(order).start().await?;

    // A server remembers the orders of the last run.
    let number = format!("order-{}", Timestamp::now());
    place(&bus, &number, 1).await?;
    place(&bus, &number, 1).await?; // the same event once more
    place(&bus, &number, 2).await?; // the same order under another id

    let done = |subscription: &polybus::Subscription| {
        let counts = subscription.counts();
        counts.handled + counts.duplicates
    };
    while done(&billing) < 3 || done(&books) < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (billing, books) = (billing.counts(), books.counts());
    println!(
        "by id:    {} charged, {} skipped",
        billing.handled, billing.duplicates
    );
    println!(
        "by order: {} charged, {} skipped",
        books.handled, books.duplicates
    );
    assert_eq!(by_id.load(Ordering::Relaxed), 2 * 1_250);
    assert_eq!(by_order.load(Ordering::Relaxed), 1_250);
    bus.close("10s").await?.into_result()
}
