//! `Bus::transaction`.

use std::time::Duration;

use polybus::testing::Fault;
use polybus::{Bus, Effect, Error, ErrorKind, Event, Payload, Result, State};
use tokio::sync::mpsc;

use super::shop::{MailSent, OrderPlaced, bus, config, order, stock, stored};

#[tokio::test(start_paused = true)]
async fn all_events_of_a_transaction_are_published() {
    let bus = bus("").await;
    let answer = bus
        .transaction("shop", async |tx| {
            tx.publish(order(1)).await?;
            tx.publish(stock(1)).await?;
            tx.publish(order(2)).await?;
            Ok("done")
        })
        .await;
    assert_eq!(answer.unwrap(), "done");
    let (orders, stocks) = stored(&bus);
    assert_eq!(*orders, [order(1), order(2)]);
    assert_eq!(*stocks, [stock(1)]);
    let published = bus.published_raw("*");
    assert_eq!(published[0].event.source(), "shop");
    assert_eq!(bus.publish_stats().accepted, 3);
    assert_eq!(bus.publish_stats().queued_events, 0);
}

/// Any closure that gives a future will do.
#[tokio::test(start_paused = true)]
async fn a_transaction_runs_in_a_spawned_task() {
    let bus = bus("").await;
    let other = bus.bus().clone();
    let task = tokio::spawn(async move {
        let (a, b) = (order(1), stock(1));
        let work = |tx: polybus::Transaction| async move {
            tx.publish(a).await?;
            tokio::task::yield_now().await;
            tx.publish(b).await
        };
        other.transaction("shop", work).await
    });
    task.await.unwrap().unwrap();
    assert_eq!(stored(&bus).0.len(), 1);
    let (a, b) = (order(2), stock(2));
    let other = bus.bus().clone();
    let task = tokio::spawn(async move {
        other
            .transaction("shop", async |tx| {
                tx.publish(a).await?;
                tx.publish(b).await
            })
            .await
    });
    task.await.unwrap().unwrap();
    assert_eq!(stored(&bus).0.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_closure_publishes_nothing() {
    let bus = bus("").await;
    let failed: Result<()> = bus
        .transaction("shop", async |tx| {
            tx.publish(order(1)).await?;
            tx.publish(stock(1)).await?;
            Err(Error::new(ErrorKind::Handler, "out of stock"))
        })
        .await;
    let error = failed.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Handler, "out of stock")
    );
    bus.published_raw("*").assert_empty();
    assert_eq!(bus.publish_stats(), polybus::PublishStats::default());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_transaction_publishes_nothing() {
    let bus = bus("").await;
    let work = bus.transaction("shop", async |tx| {
        tx.publish(order(1)).await?;
        std::future::pending::<Result<()>>().await
    });
    assert!(
        tokio::time::timeout(Duration::from_secs(1), work)
            .await
            .is_err()
    );
    bus.published_raw("*").assert_empty();
}

#[tokio::test(start_paused = true)]
async fn an_event_of_another_transport_is_refused_before_anything_is_sent() {
    let bus = bus("").await;
    for pass_over in [false, true] {
        let failed = bus
            .transaction("shop", async |tx| {
                tx.publish(order(1)).await?;
                let refused = tx.publish(MailSent { order: 1 }).await;
                if !pass_over {
                    refused?;
                }
                Ok(())
            })
            .await;
        let error = failed.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MixedTransports, "{error}");
        assert_eq!(error.transport(), Some("shop"));
        assert!(
            error
                .to_string()
                .contains("`mail.sent` travels on transport `other`"),
            "{error}"
        );
        bus.published_raw("*").assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_could_not_be_published_alone_ends_the_transaction() {
    let bus = bus("").await;
    let large = Event::builder("order.placed").data(vec![b'1'; 2048]);
    let astray = Event::builder("nobody.knows").data("1");
    let wrong = Event::builder("order.placed")
        .content_type("application/json")
        .data("{");
    for (event, kind) in [
        (large, ErrorKind::TooLarge),
        (astray, ErrorKind::NoRoute),
        (wrong, ErrorKind::InvalidEvent),
    ] {
        let failed = bus
            .transaction("shop", async |tx| {
                tx.publish(order(1)).await?;
                let error = tx.publish(event).await.unwrap_err();
                assert_eq!(error.kind(), kind, "{error}");
                // Passed over; what comes behind is refused as well.
                assert_eq!(tx.publish(order(2)).await.unwrap_err().kind(), kind);
                Ok(())
            })
            .await;
        assert_eq!(failed.unwrap_err().kind(), kind);
        bus.published_raw("*").assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_bounded_in_events_and_bytes() {
    for (limit, most) in [
        ("max_transaction_events = 3", 3),
        ("max_transaction_bytes = 300", 3),
    ] {
        let bus = bus(&format!("[publishing]\n{limit}")).await;
        let mut taken = 0;
        let failed = bus
            .transaction("shop", async |tx| {
                for number in 0..10 {
                    tx.publish(order(number)).await?;
                    taken += 1;
                }
                Ok(())
            })
            .await;
        let error = failed.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
        assert!(!error.retryable());
        let setting = limit.split(' ').next().unwrap();
        assert!(error.to_string().contains(setting), "{error}");
        assert!(taken > 0 && taken <= most, "{taken} with {limit}");
        bus.published_raw("*").assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn transactions_larger_than_the_room_of_the_bus_pass_one_by_one() {
    let bus = bus("[publishing]\nmax_queued_events = 2\nmax_queued_bytes = 100").await;
    let place = |number| {
        bus.transaction("shop", async move |tx| {
            for _ in 0..5 {
                tx.publish(order(number)).await?;
            }
            Ok(())
        })
    };
    let (first, second) = tokio::join!(place(1), place(2));
    first.and(second).unwrap();
    let orders = stored(&bus).0;
    let numbers: Vec<_> = orders.iter().map(|it| it.order).collect();
    assert!(
        numbers.is_sorted() || numbers.iter().rev().is_sorted(),
        "{numbers:?}"
    );
    orders.assert_len(10);
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_is_not_there_is_named() {
    let bus = bus("").await;
    let work = bus.transaction("kafka", async |tx| tx.publish(order(1)).await);
    let error = work.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(
        text.contains("no transport `kafka`") && text.contains("`other`, `shop`"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_outlives_its_transaction_takes_nothing() {
    let bus = bus("").await;
    let (sender, mut kept) = mpsc::unbounded_channel();
    bus.transaction("shop", async |tx| {
        sender.send(tx.clone()).unwrap();
        tx.publish(order(1)).await
    })
    .await
    .unwrap();
    let tx = kept.recv().await.unwrap();
    let error = tx.publish(order(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(stored(&bus).0.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_now_is_tried_again_as_a_whole() {
    let bus = bus("").await;
    let fault = bus.inject(Fault::reject("stock.*").times(2));
    bus.transaction("shop", async |tx| {
        tx.publish(order(1)).await?;
        tx.publish(stock(1)).await
    })
    .await
    .unwrap();
    assert_eq!(fault.hits(), 2);
    let (orders, stocks) = stored(&bus);
    orders.assert_len(1);
    stocks.assert_len(1);
    assert_eq!(bus.publish_stats().retried, 4);

    bus.inject(Fault::reject("stock.*").times(100));
    let failed = bus.transaction("shop", async |tx| {
        tx.publish(order(2)).await?;
        tx.publish(stock(2)).await
    });
    let error = failed.await.unwrap_err();
    assert_eq!(error.effect(), Effect::NotApplied);
    stored(&bus).0.assert_len(1);
    assert_eq!(bus.publish_stats().rejected, 2);
    assert_eq!(bus.failed().read().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_unknown_and_not_tried_again() {
    let bus = bus("").await;
    let fault = bus.inject(Fault::lose_answer("stock.*").times(2));
    let failed = bus.transaction("shop", async |tx| {
        tx.publish(order(1)).await?;
        tx.publish(stock(1)).await
    });
    let error = failed.await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    assert_eq!(error.transport(), Some("shop"));
    assert_eq!(fault.hits(), 1);
    stored(&bus).0.assert_len(1);
    assert_eq!(bus.publish_stats().unknown, 2);
}

/// A reader that sees one of two events sees the other as well.
#[tokio::test(flavor = "multi_thread")]
async fn no_reader_sees_a_part() {
    let bus = Bus::builder().config(config("")).build().await.unwrap();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let watch = async |Payload(_): Payload<OrderPlaced>, State(state): State<Seen>| {
        let (bus, sender) = state;
        let stocks = bus.topics().describe("shop", "stock").await?;
        sender.send(stocks.map_or(0, |topic| topic.events)).unwrap();
        Ok::<(), Error>(())
    };
    type Seen = (Bus, mpsc::UnboundedSender<u64>);
    let subscription = bus.subscribe("watch").state((bus.clone(), sender));
    subscription.on(watch).start().await.unwrap();
    for number in 0..200 {
        bus.transaction("shop", async |tx| {
            tx.publish(order(number)).await?;
            tx.publish(stock(number)).await
        })
        .await
        .unwrap();
    }
    for number in 0..200 {
        let stocks = seen.recv().await.unwrap();
        assert!(
            stocks > number,
            "the order was seen, and {stocks} of its kind reserved"
        );
    }
    let report = bus.close("10s").await.unwrap();
    report.into_result().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closed_bus_and_a_closing_one_refuse() {
    let bus = bus("").await;
    let other = bus.bus().clone();
    let failed = bus.transaction("shop", async |tx| {
        tx.publish(order(1)).await?;
        let _ = other.close("1s").await?;
        Ok(())
    });
    assert_eq!(failed.await.unwrap_err().kind(), ErrorKind::Closed);
    let work = bus.transaction("shop", async |tx| tx.publish(order(2)).await);
    assert_eq!(work.await.unwrap_err().kind(), ErrorKind::Closed);
    bus.published_raw("*").assert_empty();
}
