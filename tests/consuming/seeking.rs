//! Subscriptions that go on from another place while they run, in memory as on servers.

use std::ops::Range;
use std::time::Duration;

use polybus::transport::{Subscriber, Subscription as Membership, Transport};
use polybus::{
    Bus, ErrorKind, Payload, Start, State, Subscription, SubscriptionState, Timestamp, Topic,
};
use tokio::time::{Instant, sleep, timeout};

use super::place::{EVERYWHERE, Handled, PATIENCE, Place, Work, publish, subscribe};

const KEYS: usize = 3;

async fn handle(Payload(work): Payload<Work>, State(handled): State<Handled>) {
    handled.note(&work);
}

async fn start(bus: &Bus) -> (Subscription, Handled) {
    let handled = Handled::default();
    (subscribe(bus, handled.clone(), handle).await, handled)
}

/// Each key saw the numbers, and then the others, each once and in their order.
fn assert_seen(handled: &Handled, first: Range<usize>, then: Range<usize>, transport: &str) {
    let expected: Vec<usize> = first.chain(then).collect();
    let by_key = handled.by_key();
    assert_eq!(by_key.len(), KEYS, "{transport}");
    for (key, seen) in by_key {
        assert_eq!(seen, expected, "{key} on {transport}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_subscription_goes_back_to_the_beginning_and_on_from_there() {
    for transport in EVERYWHERE {
        let place = Place::shared(transport, "").await;
        let bus = place.bus().await;
        let (subscription, handled) = start(&bus).await;
        publish(&bus, KEYS, 0..10).await;
        handled.wait_for(KEYS * 10).await;
        subscription.seek(Start::Beginning, "10s").await.unwrap();
        assert_eq!(subscription.status().state, SubscriptionState::Running);
        publish(&bus, KEYS, 10..20).await;
        handled.wait_for(KEYS * 30).await;
        place.wait_until_done(&bus).await;
        assert_seen(&handled, 0..10, 0..20, transport);
        place.close(bus).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_subscription_replays_from_a_point_in_time() {
    // Apart by more than the coarsest clock of a server.
    const APART: Duration = Duration::from_millis(50);
    for transport in EVERYWHERE {
        let place = Place::shared(transport, "").await;
        let bus = place.bus().await;
        let (subscription, handled) = start(&bus).await;
        publish(&bus, KEYS, 0..10).await;
        sleep(APART).await;
        let time = Timestamp::now();
        sleep(APART).await;
        publish(&bus, KEYS, 10..20).await;
        handled.wait_for(KEYS * 20).await;
        subscription.seek(Start::time(time), "10s").await.unwrap();
        handled.wait_for(KEYS * 30).await;
        place.wait_until_done(&bus).await;
        assert_seen(&handled, 0..20, 10..20, transport);
        place.close(bus).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_subscription_skips_to_now_and_stays_paused() {
    for transport in EVERYWHERE {
        let place = Place::shared(transport, "").await;
        let bus = place.bus().await;
        let (subscription, handled) = start(&bus).await;
        publish(&bus, KEYS, 0..10).await;
        handled.wait_for(KEYS * 10).await;
        subscription.drain("30s").await.unwrap();
        publish(&bus, KEYS, 10..20).await;
        subscription.seek(Start::Now, "10s").await.unwrap();
        assert_eq!(subscription.status().state, SubscriptionState::Paused);
        publish(&bus, KEYS, 20..30).await;
        subscription.resume();
        handled.wait_for(KEYS * 20).await;
        place.wait_until_done(&bus).await;
        assert_seen(&handled, 0..10, 20..30, transport);
        place.close(bus).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_other_members_is_not_moved_and_the_subscription_goes_on() {
    for transport in EVERYWHERE {
        let place = Place::shared(transport, "").await;
        let bus = place.bus().await;
        let (subscription, handled) = start(&bus).await;
        publish(&bus, KEYS, 0..10).await;
        handled.wait_for(KEYS * 10).await;
        let topic = Topic::new(place.topic.clone());
        let membership = Membership::new(place.group.clone(), [topic]);
        let other = bus.transport(transport).unwrap().subscribe(membership);
        let other = other.await.unwrap();
        let refused = subscription.seek(Start::Beginning, "10s").await;
        let error = refused.expect_err(transport);
        assert_eq!(error.kind(), ErrorKind::InUse, "{transport}");
        other.close(Instant::now() + PATIENCE).await.unwrap();
        publish(&bus, KEYS, 10..20).await;
        handled.wait_for(KEYS * 20).await;
        place.wait_until_done(&bus).await;
        assert_seen(&handled, 0..10, 10..20, transport);
        place.close(bus).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_has_at_a_seek_is_abandoned_when_its_time_is_up_and_comes_again() {
    async fn hang_once(Payload(work): Payload<Work>, State(handled): State<Handled>) {
        handled.note(&work);
        if handled.total() == 1 {
            std::future::pending::<()>().await;
        }
    }
    for transport in EVERYWHERE {
        let place = Place::shared(transport, "").await;
        let bus = place.bus().await;
        let handled = Handled::default();
        let subscription = subscribe(&bus, handled.clone(), hang_once).await;
        publish(&bus, 1, 0..3).await;
        handled.wait_for(1).await;
        let seek = subscription.seek(Start::Beginning, "1s");
        timeout(PATIENCE, seek).await.unwrap().unwrap();
        handled.wait_for(4).await;
        place.wait_until_done(&bus).await;
        assert_eq!(handled.by_key()["key-0"], [0, 0, 1, 2], "{transport}");
        place.close(bus).await;
    }
}
