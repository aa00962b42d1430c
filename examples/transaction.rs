//! Events that are published all or none: `cargo run --example transaction`, or on a real Redis, by a
//! config whose routes take `order.*` and `stock.*` to one transport:
//!
//! ```sh
//! ./scripts/servers up
//! cargo run --features full --example transaction examples/polybus.toml
//! ./scripts/servers down
//! ```

use polybus::{Bus, Config, Error, ErrorKind, Event, Result};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.placed", key = order)]
struct OrderPlaced {
    order: u32,
    pieces: u32,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "stock.reserved", key = order)]
struct StockReserved {
    order: u32,
    pieces: u32,
}

const CONFIG: &str = r#"
    [service]
    name = "shop"

    [transports.local]
    kind = "memory"

    [[routes]]
    pattern   = "order.*"
    transport = "local"
    topic     = "orders"

    [[routes]]
    pattern   = "stock.*"
    transport = "local"
    topic     = "stock"
"#;

/// Two events on two topics, or none.
async fn place(bus: &Bus, transport: &str, order: u32, pieces: u32) -> Result<()> {
    bus.transaction(transport, async |tx| {
        tx.publish(OrderPlaced { order, pieces }).await?;
        if pieces > 5 {
            // The order is not published either.
            return Err(Error::new(ErrorKind::Handler, "there are only 5 pieces"));
        }
        tx.publish(StockReserved { order, pieces }).await
    })
    .await
}

#[tokio::main]
async fn main() -> Result<()> {
    let config = match std::env::args().nth(1) {
        Some(path) => Config::from_file(path)?,
        None => Config::parse(CONFIG, "transaction.toml")?,
    };
    let bus = Bus::builder().config(config).build().await?;
    bus.topics().ensure().await?;
    let transport = bus.routes().resolve("order.placed")?.transport.clone();

    for (order, pieces) in [(1, 2), (2, 50), (3, 5)] {
        match place(&bus, &transport, order, pieces).await {
            Ok(()) => println!("order {order} for {pieces} pieces: both events are published"),
            Err(error) => println!("order {order} for {pieces} pieces: nothing is: {error}"),
        }
    }
    println!("{:?}", bus.publish_stats());
    bus.close("5s").await?.into_result()
}
