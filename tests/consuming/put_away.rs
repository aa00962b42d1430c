//! A topic of dead letters that can't be written: the event is held, not lost.

use std::time::Duration;

use polybus::{Payload, Permanent, State};
use polybus_test_support::RedisServer;
use tokio::time::{sleep, timeout};

use super::place::{Handled, PATIENCE, Place, Work, header, publish, subscribe, wait_for_error};

async fn refuse_zero(
    Payload(work): Payload<Work>,
    State(handled): State<Handled>,
) -> Result<(), Permanent> {
    handled.note(&work);
    if work.key == "key-0" {
        return Err(Permanent::new("not this key"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_holds_the_key_until_its_dead_letter_can_be_written() {
    let place = Place::shared("redis", "").await;
    let bus = place.bus().await;
    let url = RedisServer::shared().await.url();
    let mut redis = redis::Client::open(url)
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let letters = format!("{}.dlq", place.topic);
    let set: redis::Cmd = redis::Cmd::set(&letters, "in the way");
    set.exec_async(&mut redis).await.unwrap();

    let handled = Handled::default();
    let subscription = subscribe(&bus, handled.clone(), refuse_zero).await;
    publish(&bus, 3, 0..5).await;
    handled.wait_for(11).await;
    wait_for_error(&subscription).await;
    let by_key = handled.by_key();
    assert_eq!(by_key["key-0"], [0], "the next events of the key wait");
    assert_eq!(by_key["key-1"], [0, 1, 2, 3, 4], "other keys flow");
    assert_eq!(subscription.counts().dead_lettered, 0);
    // The status is of the moment before the runtime last waited.
    let held = async {
        while subscription.status().in_flight < 5 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let held = timeout(PATIENCE, held).await;
    held.expect("the events of the key are in flight");

    redis::Cmd::del(&letters)
        .exec_async(&mut redis)
        .await
        .unwrap();
    let found = place.dead_letters(&bus, 5).await;
    assert_eq!(header(found[0].headers(), "polybus-reason"), "not this key");
    place.wait_until_done(&bus).await;
    assert_eq!(handled.total(), 15);
    place.close(bus).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_gives_the_event_back_at_the_stop_if_its_dead_letter_was_never_written() {
    let mended = Place::shared("kafka", "").await;
    mended.close(mended.bus().await).await;
    let place = Place {
        text: format!("{}dead_letter = 'no such/name'\n", mended.text),
        ..mended.clone()
    };
    let bus = place.connect().await;
    let error = bus.topics().ensure().await.unwrap_err();
    assert_eq!(
        error.topic(),
        Some("no such/name"),
        "it is found beforehand too"
    );
    let handled = Handled::default();
    let subscription = subscribe(&bus, handled.clone(), refuse_zero).await;
    publish(&bus, 3, 0..5).await;
    handled.wait_for(11).await;
    wait_for_error(&subscription).await;
    assert_eq!(handled.by_key()["key-0"], [0]);
    let report = bus.close("20s").await.unwrap();
    assert_eq!(report.unfinished(), 5);

    let bus = mended.bus().await;
    subscribe(&bus, Handled::default(), refuse_zero).await;
    let found = mended.dead_letters(&bus, 5).await;
    assert_eq!(
        header(found[0].headers(), "polybus-origin-topic"),
        mended.topic
    );
    mended.wait_until_done(&bus).await;
    mended.close(bus).await;
}
