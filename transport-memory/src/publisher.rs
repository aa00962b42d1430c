use std::sync::atomic::{AtomicBool, Ordering};

use polybus_core::transport::{Outcome, Outgoing, Position, Publisher};
use polybus_core::{Error, ErrorKind, Result};
use tokio::sync::watch;
use tokio::task::coop;
use tokio::time::{Instant, timeout_at};

use crate::broker::{Measure, Progress};
use crate::together::{Ended, together};
use crate::transport::Client;

/// Publishes to a broker in memory.
///
/// What is published is stored when the call returns. A topic that is full makes it wait until
/// the groups have settled enough; at the delivery deadline of
/// [`MemoryConfig`](crate::MemoryConfig) the rest is [`Rejected`](Outcome::Rejected) with
/// [`Full`](ErrorKind::Full), since it is certainly not stored. No outcome is
/// [`Unknown`](Outcome::Unknown).
#[derive(Debug)]
pub struct MemoryPublisher {
    client: Client,
    closed: AtomicBool,
    /// Calls that wait for room.
    waiting: watch::Sender<usize>,
}

impl MemoryPublisher {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            closed: AtomicBool::new(false),
            waiting: watch::Sender::new(0),
        }
    }

    fn prepare(&self, outgoing: &Outgoing) -> Progress {
        let measure = Measure::of(outgoing);
        if measure.size > self.client.broker.max_bytes() {
            return Progress::TooLarge(measure.size);
        }
        Progress::Open(measure)
    }

    fn outcome(&self, outgoing: &Outgoing, progress: &Progress) -> Outcome {
        match progress {
            Progress::Stored(offset) => Outcome::Accepted(Position::new(0, *offset)),
            Progress::TooLarge(size) => {
                let limit = self.client.broker.max_bytes();
                let message = format!("an event of {size} bytes is over the topic's {limit}");
                let note = "send less, or raise `max_bytes` of the transport";
                let error = Error::new(ErrorKind::TooLarge, message).with_note(note);
                Outcome::Rejected(self.context(error, outgoing))
            }
            Progress::Open(_) => Outcome::Rejected(self.full(outgoing)),
        }
    }

    fn full(&self, outgoing: &Outgoing) -> Error {
        let broker = &self.client.broker;
        let waited = broker.delivery_deadline();
        let message = format!("the topic is full and no room was made within {waited:?}");
        let why = match broker.lock().slowest_group(outgoing.topic.name()) {
            Some((group, unsettled)) => {
                format!("group `{group}` has {unsettled} events not settled")
            }
            None => "no group reads the topic, so everything is kept for the first".to_owned(),
        };
        let error = Error::new(ErrorKind::Full, message)
            .with_note(why)
            .with_note("settle faster, or raise `max_events` or `max_bytes` of the transport");
        self.context(error, outgoing)
    }

    fn closed(&self, outgoing: &Outgoing) -> Outcome {
        Outcome::Rejected(self.context(closed(), outgoing))
    }

    fn context(&self, error: Error, outgoing: &Outgoing) -> Error {
        error
            .with_operation("publish")
            .with_transport(self.client.name.clone())
            .with_topic(outgoing.topic.name())
    }
}

impl Publisher for MemoryPublisher {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        if self.closed.load(Ordering::Acquire) {
            return batch.iter().map(|outgoing| self.closed(outgoing)).collect();
        }
        // A publisher that never waits must leave its thread to its readers now and then.
        coop::consume_budget().await;
        let broker = &self.client.broker;
        let mut progress: Vec<_> = batch.iter().map(|it| self.prepare(it)).collect();
        if !broker.append(batch, &mut progress) {
            let _waiting = Waiting::new(&self.waiting);
            broker.append_as_room_is_made(batch, &mut progress).await;
        }
        let outcomes = batch.iter().zip(&progress);
        outcomes
            .map(|(outgoing, progress)| self.outcome(outgoing, progress))
            .collect()
    }

    async fn publish_together(&self, batch: &[Outgoing]) -> Result<Vec<Position>> {
        const OPERATION: &str = "publish_together";
        if self.closed.load(Ordering::Acquire) {
            let error = closed().with_operation(OPERATION);
            return Err(error.with_transport(self.client.name.clone()));
        }
        let _waiting = Waiting::new(&self.waiting);
        match together(&self.client, OPERATION, None, batch).await? {
            Ended::Stored(positions) => Ok(positions),
            Ended::Stale => unreachable!("nothing is acknowledged"),
        }
    }

    async fn flush(&self, deadline: Instant) -> Result<()> {
        let mut waiting = self.waiting.subscribe();
        let done = waiting.wait_for(|calls| *calls == 0);
        let late = timeout_at(deadline, done).await.is_err();
        if !late {
            return Ok(());
        }
        let calls = *self.waiting.borrow();
        let message = format!("{calls} calls of publish still wait for room in a full topic");
        Err(Error::new(ErrorKind::Timeout, message)
            .with_operation("flush")
            .with_transport(self.client.name.clone()))
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        self.flush(deadline).await
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the publisher is closed")
}

/// Counts a call as waiting for as long as it lives, also when it is dropped.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|calls| *calls += 1);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|calls| *calls -= 1);
    }
}
