//! A service and its unit tests, in memory: `cargo run --example testing` runs the tests as a
//! program, so that it shows what they see; in a service each is a
//! `#[tokio::test(start_paused = true)]`.

use polybus::testing::{Fault, TestBus};
use polybus::{Bus, Event, Payload, Permanent, State};
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

async fn an_order_is_charged_once() -> polybus::Result<()> {
    let bus = TestBus::from_file(CONFIG);
    wire(&bus).await?;
    bus.publish(order("o1", 990)).await?;
    bus.settle().await;
    assert_eq!(bus.published::<Charged>().only().cents, 990);
    bus.dead_letters().assert_empty();
    Ok(())
}

async fn an_order_for_nothing_is_put_away() -> polybus::Result<()> {
    let bus = TestBus::from_file(CONFIG);
    wire(&bus).await?;
    bus.publish(order("o1", 0)).await?;
    bus.settle().await;
    println!("{}", bus.dead_letters());
    assert_eq!(
        bus.dead_letters().only().reason(),
        "0 cents can't be charged"
    );
    bus.published::<Charged>().assert_empty();
    Ok(())
}

async fn a_server_that_is_away_delays_and_loses_nothing() -> polybus::Result<()> {
    let bus = TestBus::from_file(CONFIG);
    wire(&bus).await?;
    // The bus tries five times, then the handler's call fails and the handler is tried again.
    let away = bus.inject(Fault::reject("deal.charged").times(5));
    bus.publish(order("o1", 990)).await?;
    bus.settle().await;
    assert_eq!(away.hits(), 5);
    println!("{}", bus.history("deal-watch"));
    bus.retried("deal-watch").assert_len(1);
    bus.published::<Charged>().assert_len(1);
    Ok(())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> polybus::Result<()> {
    an_order_is_charged_once().await?;
    an_order_for_nothing_is_put_away().await?;
    a_server_that_is_away_delays_and_loses_nothing().await?;
    println!("3 tests passed");
    Ok(())
}
