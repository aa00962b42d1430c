//! A service and its unit tests, run as a program, so that it shows what they see; in a service each is
//! a `#[tokio::test(start_paused = true)]`. The same tests run on real servers, there with the real clock.
//!
//! ```sh
//! cargo run --example testing                                     # in memory
//! ./scripts/servers up
//! cargo run --features full --example testing examples/polybus.toml
//! ./scripts/servers down
//! ```

use polybus::testing::{Fault, TestBus};
use polybus::{Bus, Config, Event, Payload, Permanent, State};
use serde::{Deserialize, Serialize};

// The service: an order is charged, and a charged order is shipped.

#[derive(Event, Serialize, Deserialize)]
#[event(type = "deal.ordered", version = "1.0.0", key = order)]
struct Ordered {
    order: String,
    cents: i64,
}

#[derive(Event, Serialize, Deserialize, Debug)]
#[event(type = "deal.charged", version = "1.0.0", key = order)]
struct Charged {
    order: String,
    cents: i64,
}

async fn charge(
    Payload(ordered): Payload<Ordered>,
    State(bus): State<Bus>,
) -> Result<(), polybus::BoxError> {
    let Ordered { order, cents } = ordered;
    if cents <= 0 {
        return Err(Permanent::new(format!("{cents} cents can't be charged")).into());
    }
    bus.publish(Charged { order, cents }).await?;
    Ok(())
}

async fn wire(bus: &Bus) -> polybus::Result<()> {
    let subscription = bus.subscribe("deal-watch").state(bus.clone()).on(charge);
    subscription.start().await.map(drop)
}

fn order(order: &str, cents: i64) -> Ordered {
    Ordered {
        order: order.into(),
        cents,
    }
}

// Its tests.

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/polybus.toml");

/// In memory, or on the servers of a config.
async fn test_bus() -> polybus::Result<TestBus> {
    let Some(path) = std::env::args().nth(1) else {
        return Ok(TestBus::from_file(CONFIG));
    };
    let bus = TestBus::on(Bus::builder().config(Config::from_file(path)?)).await?;
    bus.topics().ensure().await?;
    Ok(bus)
}

async fn an_order_is_charged_once() -> polybus::Result<()> {
    let bus = test_bus().await?;
    wire(&bus).await?;
    bus.publish(order("o1", 990)).await?;
    bus.settle().await;
    assert_eq!(bus.published::<Charged>().only().cents, 990);
    bus.dead_letters().assert_empty();
    bus.close("10s").await?.into_result()
}

async fn an_order_for_nothing_is_put_away() -> polybus::Result<()> {
    let bus = test_bus().await?;
    wire(&bus).await?;
    bus.publish(order("o1", 0)).await?;
    bus.settle().await;
    println!("{}", bus.dead_letters());
    assert_eq!(
        bus.dead_letters().only().reason(),
        "0 cents can't be charged"
    );
    bus.published::<Charged>().assert_empty();
    bus.close("10s").await?.into_result()
}

async fn a_server_that_is_away_delays_and_loses_nothing() -> polybus::Result<()> {
    let bus = test_bus().await?;
    wire(&bus).await?;
    // The bus tries five times, then the handler's call fails and the handler is tried again.
    let away = bus.inject(Fault::reject("deal.charged").times(5));
    bus.publish(order("o1", 990)).await?;
    bus.settle().await;
    assert_eq!(away.hits(), 5);
    println!("{}", bus.history("deal-watch"));
    bus.retried("deal-watch").assert_len(1);
    bus.published::<Charged>().assert_len(1);
    bus.close("10s").await?.into_result()
}

async fn tests() -> polybus::Result<()> {
    an_order_is_charged_once().await?;
    an_order_for_nothing_is_put_away().await?;
    a_server_that_is_away_delays_and_loses_nothing().await?;
    println!("3 tests passed");
    Ok(())
}

fn main() -> polybus::Result<()> {
    let in_memory = std::env::args().nth(1).is_none();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // Paused time jumps over every pause; it would run ahead of real servers.
    let runtime = runtime.enable_all().start_paused(in_memory).build();
    runtime.expect("a runtime").block_on(tests())
}
