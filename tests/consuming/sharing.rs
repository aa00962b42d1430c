//! Members that come and go while events are handled.

use std::time::Duration;

use polybus::{Bus, Payload, State};
use polybus_test_support::KafkaServer;
use tokio::time::timeout;

use super::place::{Doubled, Handled, PATIENCE, Place, Work, publish, subscribe};
use super::poison::busy_for;

async fn take_a_while(Payload(work): Payload<Work>, State(handled): State<Handled>) {
    busy_for(Duration::from_millis(20)).await;
    handled.note(&work);
}

/// Publishes numbers for each key until something has happened, and returns how many.
async fn publish_until(bus: &Bus, from: usize, happened: impl Fn() -> bool) -> usize {
    let publishing = async {
        let mut next = from;
        while !happened() {
            publish(bus, KEYS, next..next + 5).await;
            next += 5;
            busy_for(Duration::from_millis(50)).await;
        }
        next
    };
    timeout(PATIENCE, publishing)
        .await
        .expect("every member gets its share")
}

const KEYS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_handed_over_with_work_in_flight_double_nothing_and_lose_nothing() {
    let place = Place::shared("kafka", "").await;
    KafkaServer::shared()
        .await
        .create_topic(&place.topic, 6)
        .await
        .unwrap();
    let buses = [place.bus().await, place.bus().await, place.bus().await];
    let handled = Handled::default();
    let mut members = Vec::new();
    let mut published = 0;
    for bus in &buses {
        members.push(subscribe(bus, handled.clone(), take_a_while).await);
        let counts = || members.last().map_or(0, |member| member.counts().handled);
        published = publish_until(bus, published, || counts() >= 20).await;
    }
    let [first, second, third] = buses;
    // A clean stop hands its partitions over as well.
    place.close(first).await;
    publish(&second, KEYS, published..published + 5).await;
    handled.wait_for(KEYS * (published + 5)).await;
    place.wait_until_done(&second).await;
    handled.assert_all(KEYS, 0..published + 5, Doubled::Never);
    place.close(second).await;
    place.close(third).await;
}
