//! Each order is paid once, though its handler fails, is given up, or dies with its process: what it
//! publishes and the acknowledgement of its event are stored in one step.
//!
//! `cargo run --example exactly_once`, or with a config of your own whose routes take `order.*` to
//! one transport, Kafka say: `cargo run --features full --example exactly_once -- my.toml`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use polybus::{
    Bus, Config, Context, Error, ErrorKind, Event, Payload, Result, Start, State, Transaction,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.placed", key = order)]
struct OrderPlaced {
    order: u32,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.paid", key = order)]
struct OrderPaid {
    order: u32,
}

const CONFIG: &str = r#"
    [service]
    name = "payments"

    [transports.local]
    kind = "memory"

    [[routes]]
    pattern   = "order.placed"
    transport = "local"
    topic     = "orders"

    [[routes]]
    pattern   = "order.paid"
    transport = "local"
    topic     = "payments"

    [subscriptions.pay]
    retry = { max_attempts = 5, base = "1ms", max = "10ms" }

    [subscriptions.audit]
    group = "audit"
"#;

const ORDERS: u32 = 500;

/// Publishes first, and fails then at the first attempt. Nothing is left of that.
async fn pay(
    Payload(placed): Payload<OrderPlaced>,
    State(attempts): State<Arc<AtomicU32>>,
    context: Context,
    tx: Transaction,
) -> Result<()> {
    tx.publish(OrderPaid {
        order: placed.order,
    })
    .await?;
    attempts.fetch_add(1, Ordering::Relaxed);
    if context.attempt() == 1 {
        return Err(Error::new(ErrorKind::Handler, "the bank is busy").with_retryable(true));
    }
    Ok(())
}

async fn count(Payload(_): Payload<OrderPaid>, State(paid): State<Arc<Semaphore>>) {
    paid.add_permits(1);
}

#[tokio::main]
async fn main() -> Result<()> {
    let config = match std::env::args().nth(1) {
        Some(path) => Config::from_file(path)?,
        None => Config::parse(CONFIG, "exactly_once.toml")?,
    };
    let bus = Bus::builder().config(config).build().await?;
    bus.topics().ensure().await?;

    let paid = Arc::new(Semaphore::new(0));
    let audit = bus.subscribe("audit").from(Start::Now).group("audit");
    audit.state(Arc::clone(&paid)).on(count).start().await?;
    let attempts = Arc::new(AtomicU32::new(0));
    let subscription = bus.subscribe("pay").from(Start::Now);
    let subscription = subscription.state(Arc::clone(&attempts));
    let subscription = subscription.on(pay).start().await?;

    for outcome in bus
        .publish_all((0..ORDERS).map(|order| OrderPlaced { order }))
        .await
    {
        outcome.into_result()?;
    }
    let all = tokio::time::timeout(Duration::from_secs(60), paid.acquire_many(ORDERS)).await;
    let all = all.expect("every order is paid within a minute");
    all.expect("nobody closes the count").forget();
    println!(
        "{ORDERS} orders, {} attempts, {} payments more than orders",
        attempts.load(Ordering::Relaxed),
        paid.available_permits()
    );
    println!("{:?}", subscription.counts());
    bus.close("10s").await?.into_result()
}
