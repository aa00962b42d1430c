//! One batch, from leaving to its outcomes.

use std::collections::HashSet;
use std::sync::Arc;

use super::group::{Batch, Entry, Meta};
use super::keys::key_of;
use super::{Pipeline, Reply};
use crate::middleware::failed::FailedEvent;
use crate::middleware::reply::{Completed, complete, never_answered};
use crate::middleware::route::{Fallback, Route};
use crate::transport::{Outcome, Outgoing, Publisher};
use crate::{Effect, Error, ErrorKind, Event};

/// A batch that is out. Dropped before its end, its outcome is unknown and others may leave.
#[derive(Debug)]
pub(in crate::middleware) struct Flight {
    pipeline: Arc<Pipeline>,
    /// `None` once it is settled.
    batch: Option<Batch>,
}

/// What came of a batch.
#[derive(Debug)]
pub(in crate::middleware) struct Landed {
    outcomes: Vec<Outcome>,
    /// The numbers of those that are sent again, in order.
    again: Vec<usize>,
    /// The numbers of those that went to the fallback, in order.
    went_back: Vec<usize>,
}

/// Who takes the outcomes of a batch.
pub(in crate::middleware) trait Sink {
    fn done(&mut self, reply: Reply, completed: Completed);
    /// The reply of an event that is sent again by somebody else.
    fn later(&mut self, reply: Reply) -> Reply;
}

/// The callers wait elsewhere.
struct Callers;

impl Sink for Callers {
    fn done(&mut self, reply: Reply, completed: Completed) {
        reply.send(completed);
    }

    fn later(&mut self, reply: Reply) -> Reply {
        reply
    }
}

impl Flight {
    pub(super) fn new(pipeline: &Arc<Pipeline>, batch: Batch) -> Self {
        Self {
            pipeline: Arc::clone(pipeline),
            batch: Some(batch),
        }
    }

    pub(in crate::middleware) fn batch(&mut self) -> &mut Batch {
        self.batch.as_mut().expect("a flight is settled only once")
    }

    /// Sends the batch, and what failed of it to the fallback.
    pub(in crate::middleware) async fn send(mut self) -> (Self, Landed) {
        let transport = self.pipeline.transport.clone();
        let batch = self.batch();
        let route = Arc::clone(&batch.route);
        let mut outcomes = route.publisher.publish(&batch.outgoing).await;
        complete(&mut outcomes, batch.len());
        let (mut again, mut went_back) = (Vec::new(), Vec::new());
        if !outcomes.iter().all(Outcome::is_accepted) {
            for meta in &mut batch.meta {
                meta.attempts += 1;
            }
            again = sent_again(&route, batch, &outcomes);
            keep_doubts(batch, &mut outcomes);
            if let Some(fallback) = &route.fallback {
                went_back = fall_back(fallback, batch, &mut outcomes, &again).await;
            }
        }
        if tracing::enabled!(tracing::Level::DEBUG) {
            for (outgoing, outcome) in batch.outgoing.iter().zip(&outcomes) {
                log_outcome(&transport, outgoing, outcome);
            }
        }
        let landed = Landed {
            outcomes,
            again,
            went_back,
        };
        (self, landed)
    }

    /// Settles the batch and hands the outcomes out. Others that may leave now are sent.
    pub(in crate::middleware) fn land(self, landed: Landed, sink: &mut impl Sink) {
        let pipeline = Arc::clone(&self.pipeline);
        let batches = self.settle(landed, sink);
        pipeline.start(batches);
    }

    /// Sends the batch, and then what waits, until nothing does.
    pub(super) async fn run(mut self) {
        let pipeline = Arc::clone(&self.pipeline);
        loop {
            let landed = tokio::select! {
                biased;
                landed = self.send() => landed,
                () = pipeline.shared.cut.cancelled() => return,
            };
            let (flight, landed) = landed;
            let mut batches = flight.settle(landed, &mut Callers);
            let Some(next) = batches.pop() else { return };
            pipeline.start(batches);
            self = Self::new(&pipeline, next);
        }
    }

    fn settle(mut self, landed: Landed, sink: &mut impl Sink) -> Vec<Batch> {
        let batch = self.batch.take().expect("a flight is settled only once");
        let pipeline = &self.pipeline;
        let Landed {
            outcomes,
            again,
            went_back,
        } = landed;
        let mut batches = Vec::new();
        let mut state = pipeline.lock();
        state.settle(&batch, |index| again.binary_search(&index).is_ok());
        state.ready(batch.group, false, &mut batches);
        pipeline.watch_locked(&mut state, batch.group);
        drop(state);
        let (group, route) = (batch.group, Arc::clone(&batch.route));
        let mut done = Done::default();
        let mut set = Vec::new();
        let events = batch.outgoing.into_iter().zip(batch.meta).zip(outcomes);
        for (index, ((outgoing, mut meta), outcome)) in events.enumerate() {
            if again.binary_search(&index).is_ok() {
                meta.reply = sink.later(meta.reply);
                meta.error = outcome.into_result().err();
                set.push(Entry { outgoing, meta });
                continue;
            }
            done.add(&meta, &outcome);
            if let Outcome::Rejected(error) | Outcome::Unknown(error) = &outcome {
                self.keep(outgoing, error, meta.attempts);
            }
            let went_back = went_back.binary_search(&index).is_ok();
            let fallback = route.fallback.as_ref().filter(|_| went_back);
            let fallback = fallback.map(Arc::clone);
            sink.done(meta.reply, Completed { outcome, fallback });
        }
        self.report(&done);
        self.send_later(group, &route, set);
        batches
    }

    fn keep(&self, outgoing: Outgoing, error: &Error, attempts: u32) {
        let failed = FailedEvent::new(
            &self.pipeline.transport,
            outgoing,
            error.duplicate(),
            attempts,
        );
        self.pipeline.shared.failed.keep(failed);
    }

    fn report(&self, done: &Done) {
        let shared = &self.pipeline.shared;
        shared.room.give_back(done.events, done.bytes);
        shared
            .counters
            .add(done.accepted, done.rejected, done.unknown);
        self.pipeline.progress.notify_waiters();
    }

    fn send_later(&self, group: u32, route: &Route, set: Vec<Entry>) {
        let attempts = set.iter().map(|entry| entry.meta.attempts).max();
        let Some(attempts) = attempts else { return };
        self.pipeline.shared.counters.retried(set.len());
        let pause = route.pause(attempts);
        let pipeline = Arc::clone(&self.pipeline);
        self.pipeline
            .shared
            .spawn(pipeline.send_later(group, set, pause));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let Some(batch) = self.batch.take() else {
            return;
        };
        let pipeline = &self.pipeline;
        let mut batches = Vec::new();
        let mut state = pipeline.lock();
        state.settle(&batch, |_| false);
        if !pipeline.shared.cut.is_cancelled() {
            state.ready(batch.group, false, &mut batches);
            pipeline.watch_locked(&mut state, batch.group);
        }
        drop(state);
        let mut done = Done::default();
        for Entry { outgoing, meta } in batch.into_entries() {
            done.events += 1;
            done.bytes += meta.bytes;
            done.unknown += 1;
            // A caller that drives the batch itself and goes away has given its events up.
            if !matches!(meta.reply, Reply::Own(_)) {
                let error = never_answered()
                    .with_transport(pipeline.transport.clone())
                    .with_topic(outgoing.topic.name());
                let unsent = FailedEvent::new(
                    &pipeline.transport,
                    outgoing,
                    error.duplicate(),
                    meta.attempts + 1,
                );
                pipeline.shared.unsent.add(unsent);
                meta.reply.send(Completed::of(Outcome::Unknown(error)));
            }
        }
        self.report(&done);
        self.pipeline.start(batches);
    }
}

/// What is over, for the room and the counters.
#[derive(Default)]
struct Done {
    events: u32,
    bytes: u32,
    accepted: u64,
    rejected: u64,
    unknown: u64,
}

impl Done {
    fn add(&mut self, meta: &Meta, outcome: &Outcome) {
        self.events += 1;
        self.bytes += meta.bytes;
        match outcome {
            Outcome::Accepted(_) => self.accepted += 1,
            Outcome::Rejected(_) => self.rejected += 1,
            Outcome::Unknown(_) => self.unknown += 1,
        }
    }
}

/// Which events of a batch are sent again, in order: not one after which a later event of its key
/// in the batch may have been stored, for it would stand behind that.
fn sent_again(route: &Route, batch: &Batch, outcomes: &[Outcome]) -> Vec<usize> {
    let mut stored = HashSet::new();
    let mut again = Vec::new();
    for (index, outcome) in outcomes.iter().enumerate().rev() {
        let outgoing = &batch.outgoing[index];
        let key = key_of(outgoing).map(|key| (outgoing.topic.name(), key));
        let meta = &batch.meta[index];
        let overtaken = key.is_some_and(|key| stored.contains(&key));
        if !overtaken && route.retries(outcome, meta.attempts) {
            again.push(index);
        }
        if meta.unsure || !matches!(outcome, Outcome::Rejected(_)) {
            stored.extend(key);
        }
    }
    again.reverse();
    again
}

/// What an earlier attempt may have stored is not rejected by a later one.
fn keep_doubts(batch: &mut Batch, outcomes: &mut [Outcome]) {
    for (meta, outcome) in batch.meta.iter_mut().zip(outcomes) {
        match outcome {
            Outcome::Accepted(_) => {}
            Outcome::Unknown(_) => meta.unsure = true,
            Outcome::Rejected(_) if !meta.unsure => {}
            Outcome::Rejected(error) => {
                let error = error.duplicate().with_effect(Effect::Unknown);
                let note = "an earlier attempt may have stored it";
                *outcome = Outcome::Unknown(error.with_note(note));
            }
        }
    }
}

/// Sends what was rejected for good to the fallback. Returns the numbers of what it answered for
/// otherwise than with a rejection.
async fn fall_back(
    fallback: &Fallback,
    batch: &Batch,
    outcomes: &mut [Outcome],
    again: &[usize],
) -> Vec<usize> {
    // What is invalid here is invalid there.
    let rejected = |index: &usize| {
        matches!(&outcomes[*index], Outcome::Rejected(error) if error.kind() != ErrorKind::InvalidEvent)
            && again.binary_search(index).is_err()
    };
    let mut indexes: Vec<_> = (0..batch.len()).filter(rejected).collect();
    if indexes.is_empty() {
        return indexes;
    }
    let redirect = |index: &usize| {
        let mut outgoing = batch.outgoing[*index].clone();
        outgoing.topic = fallback.topic_for(&outgoing.topic);
        outgoing
    };
    let outgoing: Vec<_> = indexes.iter().map(redirect).collect();
    let mut answers = fallback.publisher.publish(&outgoing).await;
    complete(&mut answers, indexes.len());
    let mut answers = answers.into_iter();
    indexes.retain(|index| match answers.next() {
        // The first rejection says more: it is of the transport that the route names.
        None | Some(Outcome::Rejected(_)) => false,
        Some(answer) => {
            outcomes[*index] = answer;
            true
        }
    });
    indexes
}

fn log_outcome(transport: &str, outgoing: &Outgoing, outcome: &Outcome) {
    let (name, error) = match outcome {
        Outcome::Accepted(_) => ("accepted", None),
        Outcome::Rejected(error) => ("rejected", Some(error)),
        Outcome::Unknown(error) => ("unknown", Some(error)),
    };
    tracing::debug!(
        transport,
        topic = %outgoing.topic,
        event_type = outgoing.event().map(Event::event_type),
        event_id = outgoing.event().map(Event::id),
        outcome = name,
        error = error.map(tracing::field::display),
        "published"
    );
}
