//! Storing events, and what a member has done with others, in one step.

use polybus_core::transport::{AckToken, Outgoing, Position};
use polybus_core::{Error, ErrorKind, Result, Timestamp};
use tokio::task::coop;
use tokio::time::{Instant, timeout_at};

use crate::broker::{Broker, Measure, MemberId, Step, Together, Waiting};
use crate::transport::Client;

/// Deliveries that a member acknowledges with what it publishes.
pub(crate) type Acks<'a> = Option<(MemberId, &'a [AckToken])>;

/// What became of a step.
pub(crate) enum Ended {
    Stored(Vec<Position>),
    /// A delivery is not with the member any more.
    Stale,
}

/// Stores all events and acknowledgements under one lock as soon as there is room for all of them.
pub(crate) async fn together(
    client: &Client,
    operation: &'static str,
    acks: Acks<'_>,
    batch: &[Outgoing],
) -> Result<Ended> {
    // A caller that never waits must leave its thread to readers now and then.
    coop::consume_budget().await;
    let broker = &client.broker;
    let measures: Vec<_> = batch.iter().map(Measure::of).collect();
    let step = Step {
        acks,
        batch,
        measures: &measures,
    };
    let deadline = Instant::now() + broker.delivery_deadline();
    let context = |error: Error, topic: &str| {
        error
            .with_operation(operation)
            .with_transport(client.name.clone())
            .with_topic(topic)
    };
    let _waiting = Waiting::new(broker);
    loop {
        // Made before looking: it hears of every change from here on.
        let room = broker.room();
        let full = match take(broker, &step) {
            Together::Stored(offsets) => {
                let positions = offsets.into_iter().map(|it| Position::new(0, it));
                return Ok(Ended::Stored(positions.collect()));
            }
            Together::Stale => return Ok(Ended::Stale),
            Together::TooLarge(topic) => {
                let message = "the events are more than the topic may hold";
                let note =
                    "send less at once, or raise `max_events` or `max_bytes` of the transport";
                let error = Error::new(ErrorKind::TooLarge, message).with_note(note);
                return Err(context(error, topic.name()));
            }
            Together::Full(topic) => topic,
        };
        if timeout_at(deadline, room).await.is_err() {
            let waited = broker.delivery_deadline();
            let message = format!("no room for all events was made within {waited:?}");
            let error = Error::new(ErrorKind::Full, message)
                .with_note("settle faster, or raise `max_events` or `max_bytes` of the transport");
            return Err(context(error, full.name()));
        }
    }
}

fn take(broker: &Broker, step: &Step<'_>) -> Together {
    let now = Timestamp::now();
    // What is trimmed is freed after the lock is released.
    let mut trimmed = Vec::new();
    let together = broker.change(|state, wakes| state.together(step, now, &mut trimmed, wakes));
    if step.acks.is_some() {
        broker.room_may_be_made();
    }
    together
}
