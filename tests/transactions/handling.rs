//! Handlers whose events take effect once on what they publish.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polybus::testing::{DeadLetter, Fault, Progress};
use polybus::{
    Batch, Bus, Effect, Error, ErrorKind, Event, Payload, Result, Start, State, Transaction,
    Verdict,
};

use super::shop::{MailSent, OrderPlaced, StockReserved, bus, order, stock, stored};

/// What handlers have tried, by order.
type Attempts = Arc<Mutex<BTreeMap<u32, u32>>>;

fn attempt(attempts: &Attempts, order: u32) -> u32 {
    let mut attempts = attempts.lock().unwrap();
    let attempt = attempts.entry(order).or_default();
    *attempt += 1;
    *attempt
}

async fn reserve(Payload(placed): Payload<OrderPlaced>, tx: Transaction) -> Result<()> {
    tx.publish(stock(placed.order)).await
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_publishes_is_stored_with_its_event() {
    let bus = bus("").await;
    let subscription = bus.subscribe("reserve").on(reserve).start().await.unwrap();
    for number in 0..50 {
        bus.publish(order(number)).await.unwrap();
    }
    bus.settle().await;
    let mut orders: Vec<_> = bus
        .published::<StockReserved>()
        .iter()
        .map(|it| it.order)
        .collect();
    orders.sort_unstable();
    assert_eq!(orders, (0..50).collect::<Vec<_>>());
    assert_eq!(subscription.counts().handled, 50);
    assert_eq!(bus.published_raw("stock.*")[0].event.source(), "shop");
    bus.handled("reserve").assert_len(50);
}

#[tokio::test(start_paused = true)]
async fn attempts_that_fail_publish_nothing() {
    let bus = bus("").await;
    let attempts = Attempts::default();
    let fails_twice = async |Payload(placed): Payload<OrderPlaced>,
                             State(attempts): State<Attempts>,
                             tx: Transaction| {
        tx.publish(stock(placed.order)).await?;
        match attempt(&attempts, placed.order) {
            1 => Err(Error::new(ErrorKind::Handler, "not yet").with_retryable(true)),
            2 => panic!("once"),
            _ => Ok(()),
        }
    };
    let subscription = bus.subscribe("reserve").state(attempts.clone());
    subscription.on(fails_twice).start().await.unwrap();
    for number in 0..5 {
        bus.publish(order(number)).await.unwrap();
    }
    bus.settle().await;
    bus.published::<StockReserved>().assert_len(5);
    bus.retried("reserve").assert_len(10);
    bus.dead_letters().assert_empty();
    assert!(attempts.lock().unwrap().values().all(|count| *count == 3));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_takes_the_place_of_what_was_published() {
    let bus = bus("[subscriptions.reserve]\nretry = { max_attempts = 3 }").await;
    let fails = async |Payload(placed): Payload<OrderPlaced>, tx: Transaction| {
        tx.publish(stock(placed.order)).await?;
        match placed.order {
            1 => Err(Error::new(ErrorKind::Handler, "no such thing").with_retryable(true)),
            2 => Ok(Verdict::DeadLetter {
                reason: "wanted".into(),
            }),
            3 => Ok(Verdict::Drop),
            _ => Ok(Verdict::Ack),
        }
    };
    let subscription = bus.subscribe("reserve").on(fails).start().await.unwrap();
    for number in 1..5 {
        bus.publish(order(number)).await.unwrap();
    }
    bus.settle().await;
    assert_eq!(*bus.published::<StockReserved>(), [stock(4)]);
    let letters = bus.dead_letters();
    letters.assert_len(2);
    assert_eq!(letters[0].topic.name(), "orders.dlq");
    let reasons: Vec<_> = letters.iter().map(|it| it.reason().to_owned()).collect();
    assert!(
        reasons.iter().any(|it| it.contains("no such thing")),
        "{reasons:?}"
    );
    let attempts: Vec<_> = letters.iter().map(DeadLetter::attempts).collect();
    assert!(
        attempts.contains(&3) && attempts.contains(&1),
        "{attempts:?}"
    );
    let counts = subscription.counts();
    assert_eq!(
        (counts.handled, counts.dropped, counts.dead_lettered),
        (1, 1, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_refused_makes_a_dead_letter_though_the_handler_went_on() {
    let bus = bus("").await;
    let mixes = async |Payload(placed): Payload<OrderPlaced>, tx: Transaction| {
        let _ = tx.publish(stock(placed.order)).await;
        let _ = tx
            .publish(MailSent {
                order: placed.order,
            })
            .await;
    };
    bus.subscribe("reserve").on(mixes).start().await.unwrap();
    bus.publish(order(1)).await.unwrap();
    bus.settle().await;
    bus.published::<StockReserved>().assert_empty();
    let letters = bus.dead_letters();
    assert!(
        letters
            .only()
            .reason()
            .contains("travels on transport `other`"),
        "{}",
        letters[0].reason()
    );
}

/// A lost answer is asked for: the step is made again and does nothing.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_stores_nothing_twice() {
    let bus = bus("").await;
    let lost = bus.inject(Fault::lose_answer("stock.*").times(3));
    let refused = bus.inject(Fault::reject("stock.*").nth(6).times(3));
    bus.subscribe("reserve").on(reserve).start().await.unwrap();
    for number in 0..20 {
        bus.publish(order(number)).await.unwrap();
        bus.settle().await;
    }
    assert_eq!(lost.hits(), 3);
    assert!(refused.hits() > 0);
    bus.published::<StockReserved>().assert_len(20);
    bus.handled("reserve").assert_len(20);
}

/// Deliveries that come twice, late or in another order.
#[tokio::test(start_paused = true)]
async fn disorder_stores_nothing_twice() {
    let bus = bus("").await;
    bus.inject(Fault::delay("order.*", "3s").nth(2));
    bus.inject(Fault::reorder("order.*").nth(5));
    bus.subscribe("reserve").on(reserve).start().await.unwrap();
    for number in 0..20 {
        bus.publish(order(number)).await.unwrap();
    }
    bus.settle().await;
    let mut orders: Vec<_> = bus
        .published::<StockReserved>()
        .iter()
        .map(|it| it.order)
        .collect();
    orders.sort_unstable();
    assert_eq!(orders, (0..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn events_of_one_key_are_handled_and_stored_in_their_order() {
    let bus = bus("").await;
    let slow = async |Payload(placed): Payload<OrderPlaced>, tx: Transaction| {
        tokio::time::sleep(Duration::from_millis(u64::from(placed.order % 7))).await;
        tx.publish(
            Event::builder("stock.reserved")
                .key("all")
                .data(placed.order.to_string()),
        )
        .await
    };
    bus.subscribe("reserve").on(slow).start().await.unwrap();
    for number in 0..30 {
        let event = Event::builder("order.placed")
            .key("one")
            .data(format!("{{\"order\":{number}}}"));
        bus.publish(event.content_type("application/json"))
            .await
            .unwrap();
    }
    bus.settle().await;
    let stored = bus.published_raw("stock.*");
    let numbers: Vec<u32> = stored
        .iter()
        .map(|it| {
            std::str::from_utf8(it.event.data().unwrap())
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    assert_eq!(numbers, (0..30).collect::<Vec<_>>());
}

/// More than a transaction may hold goes in several, and an event that no transaction can hold is
/// put away alone.
#[tokio::test(start_paused = true)]
async fn a_step_is_split_by_the_bounds_of_a_transaction() {
    let bus = bus("[publishing]\nmax_transaction_events = 4").await;
    let many = async |Payload(placed): Payload<OrderPlaced>, tx: Transaction| {
        let count = if placed.order == 7 { 5 } else { 3 };
        for _ in 0..count {
            tx.publish(stock(placed.order)).await?;
        }
        Ok::<_, Error>(())
    };
    bus.subscribe("reserve").on(many).start().await.unwrap();
    for number in 0..10 {
        bus.publish(order(number)).await.unwrap();
    }
    bus.settle().await;
    bus.published::<StockReserved>().assert_len(27);
    let letters = bus.dead_letters();
    assert!(
        letters.only().reason().contains("more than 4 events"),
        "{}",
        letters[0].reason()
    );
}

/// What the transport refuses whenever it is asked is put away, and the others are stored.
#[tokio::test(start_paused = true)]
async fn what_can_not_be_stored_is_put_away_alone() {
    let toml = super::shop::CONFIG.replace(
        "[transports.shop]\n    kind = \"memory\"",
        "[transports.shop]\n    kind = \"memory\"\n    max_events = 40",
    );
    let config = polybus::Config::parse(&toml, "shop.toml").unwrap();
    let bus = polybus::TestBus::on(Bus::builder().config(config))
        .await
        .unwrap();
    let many = async |Payload(placed): Payload<OrderPlaced>, tx: Transaction| {
        let count = if placed.order == 3 { 50 } else { 2 };
        for _ in 0..count {
            tx.publish(stock(placed.order)).await?;
        }
        Ok::<_, Error>(())
    };
    bus.subscribe("reserve").on(many).start().await.unwrap();
    for number in 0..6 {
        bus.publish(order(number)).await.unwrap();
    }
    bus.settle().await;
    bus.published::<StockReserved>().assert_len(10);
    let letters = bus.dead_letters();
    assert!(
        letters.only().reason().contains("was refused"),
        "{}",
        letters[0].reason()
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_stores_what_is_done_and_gives_back_the_rest() {
    let bus = bus("[subscriptions.reserve]\nconcurrency = 4").await;
    let (started, mut running) = tokio::sync::mpsc::unbounded_channel();
    let hangs = async |Payload(placed): Payload<OrderPlaced>,
                       State(started): State<tokio::sync::mpsc::UnboundedSender<u32>>,
                       tx: Transaction| {
        tx.publish(stock(placed.order)).await?;
        if placed.order == 5 {
            started.send(placed.order).unwrap();
            std::future::pending::<()>().await;
        }
        Ok::<_, Error>(())
    };
    for number in 0..10 {
        bus.publish(order(number)).await.unwrap();
    }
    let subscription = bus.subscribe("reserve").state(started);
    subscription.on(hangs).start().await.unwrap();
    running.recv().await.unwrap();
    let report = bus.close("5s").await.unwrap();
    let (_, stocks) = stored(&bus);
    let orders: Vec<_> = stocks.iter().map(|it| it.order).collect();
    assert_eq!(orders, [0, 1, 2, 3, 4], "the prefix of the topic");
    assert_eq!(report.unfinished(), 5);
}

#[tokio::test(start_paused = true)]
async fn without_a_transaction_the_setting_alone_does_it() {
    let bus = bus("[subscriptions.look]\nexactly_once = true").await;
    let fails = async |Payload(placed): Payload<OrderPlaced>| match placed.order {
        1 => Err(Error::new(ErrorKind::Handler, "never")),
        _ => Ok(()),
    };
    bus.subscribe("look").on(fails).start().await.unwrap();
    for number in 0..3 {
        bus.publish(order(number)).await.unwrap();
    }
    bus.settle().await;
    bus.handled("look").assert_len(2);
    bus.dead_letters().assert_len(1);
    let steps = bus.history("look");
    assert_eq!(
        steps
            .iter()
            .filter(|it| it.progress == Progress::DeadLettered)
            .count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn an_exactly_once_subscription_goes_back_while_it_runs() {
    let bus = bus("").await;
    let subscription = bus.subscribe("reserve").on(reserve).start().await.unwrap();
    for number in 0..20 {
        bus.publish(order(number)).await.unwrap();
    }
    bus.settle().await;
    subscription.seek(Start::Beginning, "10s").await.unwrap();
    bus.publish(order(20)).await.unwrap();
    bus.settle().await;
    let (_, stocks) = stored(&bus);
    let orders: Vec<_> = stocks.iter().map(|it| it.order).collect();
    let expected: Vec<_> = (0..20).chain(0..21).collect();
    assert_eq!(orders, expected);
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_exactly_once_is_refused_at_the_start() {
    let bus = bus("").await;
    let all = async |_: polybus::RawEvent, _: Transaction| {};
    let error = bus.subscribe("all").on_any(all).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("several transports"), "{error}");

    let batch = async |_: Batch<OrderPlaced>| {};
    let subscription = bus.subscribe("batch").exactly_once().on_batch(batch);
    let error = subscription.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("batch handler"), "{error}");
    assert_eq!(error.effect(), Effect::NotApplied);
}
