//! What an event published inside of a handler inherits.

use std::time::Duration;

use polybus::{Batch, Bus, Config, Event, Payload, State, TestBus};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(type = "order.placed")]
struct Placed {
    number: u32,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(type = "order.paid")]
struct Paid {
    number: u32,
}

async fn bus() -> TestBus {
    let text = "service.name = 'shop'\n[transports.t]\nkind = 'memory'\n\
         [[routes]]\npattern = 'order.*'\ntransport = 't'\ntopic = 'orders'\n";
    let config = Config::parse(text, "polybus.toml").unwrap();
    TestBus::on(Bus::builder().config(config)).await.unwrap()
}

async fn pay(Payload(placed): Payload<Placed>, State(bus): State<Bus>) -> polybus::Result<()> {
    // Not at the first poll alone.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let number = placed.number;
    bus.publish(Paid { number }).await?;
    Ok(())
}

/// The correlation and causation of what `pay` made of an order.
async fn links_after(publish: impl AsyncFnOnce(&Bus)) -> (Option<String>, Option<String>) {
    let bus = bus().await;
    bus.subscribe("pay")
        .state((*bus).clone())
        .on(pay)
        .start()
        .await
        .unwrap();
    publish(&bus).await;
    bus.settle().await;
    links(&bus, "order.paid")
}

fn links(bus: &TestBus, event_type: &str) -> (Option<String>, Option<String>) {
    let events = bus.published_raw(event_type);
    let event = &events.only().event;
    let owned = |text: Option<&str>| text.map(str::to_owned);
    (owned(event.correlation_id()), owned(event.causation_id()))
}

#[tokio::test(start_paused = true)]
async fn correlation_goes_on_and_the_handled_event_is_the_cause() {
    let links = links_after(async |bus| {
        let event = bus.event("order.placed").id("o1").correlation("c1");
        event
            .json(&Placed { number: 1 })
            .unwrap()
            .publish()
            .await
            .unwrap();
    })
    .await;
    assert_eq!(links, (Some("c1".into()), Some("o1".into())));
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_correlation_starts_one() {
    let links = links_after(async |bus| {
        let event = bus.event("order.placed").id("o2");
        event
            .json(&Placed { number: 1 })
            .unwrap()
            .publish()
            .await
            .unwrap();
    })
    .await;
    assert_eq!(links, (Some("o2".into()), Some("o2".into())));
}

#[tokio::test(start_paused = true)]
async fn what_is_said_outright_stays() {
    async fn say(Payload(_): Payload<Placed>, State(bus): State<Bus>) -> polybus::Result<()> {
        let event = bus.event("order.paid").json(&Paid { number: 1 })?;
        event
            .correlation("mine")
            .causation("my-cause")
            .publish()
            .await?;
        Ok(())
    }
    let bus = bus().await;
    bus.subscribe("say")
        .state((*bus).clone())
        .on(say)
        .start()
        .await
        .unwrap();
    bus.publish(Placed { number: 1 }).await.unwrap();
    bus.settle().await;
    let expected = (Some("mine".into()), Some("my-cause".into()));
    assert_eq!(links(&bus, "order.paid"), expected);
}

#[tokio::test(start_paused = true)]
async fn outside_of_a_handler_nothing_is_inherited() {
    let bus = bus().await;
    bus.subscribe("pay")
        .state((*bus).clone())
        .on(pay)
        .start()
        .await
        .unwrap();
    bus.publish(Placed { number: 1 }).await.unwrap();
    bus.settle().await;
    assert_eq!(links(&bus, "order.placed"), (None, None));
    bus.publish(Placed { number: 2 }).await.unwrap();
    let events = bus.published_raw("order.placed");
    assert_eq!(
        events[1].event.correlation_id(),
        None,
        "the next event is nobody's effect"
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_no_one_cause() {
    async fn pay_all(batch: Batch<Placed>, State(bus): State<Bus>) -> polybus::Result<()> {
        for entry in &batch {
            let number = entry.payload.number;
            bus.publish(Paid { number }).await?;
        }
        Ok(())
    }
    let bus = bus().await;
    let subscription = bus.subscribe("pay").state((*bus).clone());
    subscription.on_batch(pay_all).start().await.unwrap();
    bus.publish(Placed { number: 1 }).await.unwrap();
    bus.settle().await;
    assert_eq!(links(&bus, "order.paid"), (None, None));
}
