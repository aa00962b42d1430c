//! Handlers that take longer than a member may be silent.

use std::time::Duration;

use polybus::{Payload, State};

use super::place::{Doubled, Handled, Place, TRANSPORTS, Work, publish, subscribe};
use super::poison::busy_for;

/// Longer than `max.poll.interval.ms` and `session_timeout` on Kafka, and several times
/// `takeover_after` on Redis.
const LONG: Duration = Duration::from_secs(9);

async fn take_long(Payload(work): Payload<Work>, State(handled): State<Handled>) {
    busy_for(LONG).await;
    handled.note(&work);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_longer_than_the_lease_keeps_its_event_while_another_member_waits() {
    let both = TRANSPORTS.map(|transport| async move {
        let place = Place::shared(transport, "takeover_after = '2s'\n").await;
        let (first, second) = (place.bus().await, place.bus().await);
        let handled = Handled::default();
        let mut subscriptions = Vec::new();
        for bus in [&first, &second] {
            subscriptions.push(subscribe(bus, handled.clone(), take_long).await);
        }
        publish(&first, 3, 0..1).await;
        handled.wait_for(3).await;
        place.wait_until_done(&first).await;
        handled.assert_all(3, 0..1, Doubled::Never);
        let stale: u64 = subscriptions.iter().map(|it| it.counts().stale).sum();
        assert_eq!(stale, 0, "no settlement came too late on {transport}");
        place.close(first).await;
        place.close(second).await;
    });
    futures::future::join_all(both).await;
}
