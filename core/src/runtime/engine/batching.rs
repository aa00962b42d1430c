//! Batch handlers: collecting events for them, and what becomes of each entry.
//!
//! A job that is in a batch is at work in its lane. While the batch is collected, the next jobs of
//! the lane may join it, in their order; once it runs, they wait. So one call holds all that is
//! at work of a key. Of the entries of one key that come again, the first makes the pause of its
//! retry, and the others go back to the front of the lane, in their order.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::Engine;
use super::deferring::limited;
use super::rules::waits;
use crate::Timestamp;
use crate::handler::{CallInfo, Failure, Handled, Registered, StartedBatch, Verdict, all_failed};
use crate::runtime::Progress;
use crate::runtime::batch::{Collected, RunningBatch};
use crate::runtime::job::Job;
use crate::runtime::lanes::LaneId;
use crate::transport::Delivery;

impl Engine {
    /// Puts a job into the batch of its handler, and the next ones of its lane as far as they
    /// are for the same handler.
    pub(super) fn collect(&mut self, handler: usize, job: Job) {
        let lane = job.lane;
        let room = self.batches.push(handler, job);
        if let Some(lane) = lane.filter(|_| room) {
            self.collect_waiting(handler, lane);
        }
    }

    /// Lets a job that has just come to wait in its lane join the batch that is collected there.
    pub(super) fn join_batch(&mut self, lane: Option<LaneId>) {
        if !self.batches.is_collecting() {
            return;
        }
        if let Some((lane, handler)) =
            lane.and_then(|lane| Some((lane, self.batches.collecting_lane(lane)?)))
        {
            self.collect_waiting(handler, lane);
        }
    }

    fn collect_waiting(&mut self, handler: usize, lane: LaneId) {
        let handlers = Arc::clone(&self.handlers);
        loop {
            let (claims, validation) = (self.claims.as_ref(), self.validation.as_ref());
            let same = |job: &Job| {
                if !claims.is_none_or(|claims| claims.holds(job)) || waits(validation, job) {
                    return false;
                }
                let event = job.delivery.event().ok();
                let found = event.and_then(|event| handlers.find(event));
                !self.suspicions[job.source].keeps_out(job, self.trial)
                    && found.is_some_and(|(index, _)| index == handler)
            };
            let job = self.lanes.join(lane, same);
            let Some(job) = job.and_then(|job| self.beside_suspects(job)) else {
                return;
            };
            if !self.batches.push(handler, job) {
                return;
            }
        }
    }

    /// Calls the handler of a batch.
    pub(super) fn start_batch(&mut self, batch: Collected) {
        let Collected { handler, jobs } = batch;
        let (jobs, lost): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| {
            let token = job.delivery.token();
            self.settlements[job.source].is_current(token)
        });
        lost.into_iter().for_each(|job| self.release(job));
        let jobs = self.keep_claimed(jobs);
        if jobs.is_empty() {
            return;
        }
        let span = tracing::debug_span!("handle", subscription = %self.name, events = jobs.len());
        let handlers = Arc::clone(&self.handlers);
        let Registered::Batch(handler) = handlers.registered(handler) else {
            unreachable!("only jobs of batch handlers are collected");
        };
        let calls = jobs
            .iter()
            .map(|job| (job.source, job.attempt, &job.delivery));
        let entries = self.entries(calls);
        let started = span.in_scope(|| handler.call(&entries));
        self.on_batch_started(jobs, started, span);
    }

    /// Goes on with a batch whose handler was called.
    pub(super) fn on_batch_started(
        &mut self,
        jobs: Vec<Job>,
        started: Result<StartedBatch, Failure>,
        span: Span,
    ) {
        match started {
            Ok(mut started) => {
                let mut accepted = Vec::with_capacity(jobs.len());
                for (index, job) in jobs.into_iter().enumerate() {
                    match started.rejected.remove(&index) {
                        None => accepted.push(job),
                        Some(error) => self.on_handled(job, Err(Failure::refused(error))),
                    }
                }
                if !accepted.is_empty() {
                    let future = self.in_time(started, accepted.len());
                    let future = Box::pin(future.instrument(span));
                    self.running_batches
                        .push(RunningBatch::new(accepted, future));
                }
            }
            Err(failure) => {
                let handled = all_failed(&failure, jobs.len());
                self.on_batch_handled(jobs, handled);
            }
        }
    }

    /// What a batch handler makes of so many entries, all of which fail if it takes too long.
    pub(super) fn in_time(
        &self,
        started: StartedBatch,
        count: usize,
    ) -> BoxFuture<'static, Vec<Handled>> {
        let late = move |limit| all_failed(&Failure::late(limit), count);
        limited(started.future, self.settings.handler_timeout, late)
    }

    /// Deliveries, by source and attempt, with what else a handler's call is told of each.
    pub(super) fn entries<'a>(
        &self,
        deliveries: impl Iterator<Item = (usize, u32, &'a Delivery)>,
    ) -> Vec<(&'a Delivery, Arc<CallInfo>)> {
        let limit = self.settings.handler_timeout;
        let deadline = limit.map(|limit| Instant::now() + limit);
        // Mostly the same for all.
        let mut last: Option<((usize, u32), Arc<CallInfo>)> = None;
        let entries = deliveries.map(|(source, attempt, delivery)| {
            let same = last.take().filter(|(of, _)| *of == (source, attempt));
            let (_, info) = last.insert(same.unwrap_or_else(|| {
                let mut info = CallInfo::clone(&self.calls[source]);
                info.attempt = attempt;
                info.deadline = deadline;
                ((source, attempt), Arc::new(info))
            }));
            (delivery, Arc::clone(info))
        });
        entries.collect()
    }

    /// Decides about each entry by itself.
    pub(super) fn on_batch_handled(&mut self, jobs: Vec<Job>, handled: Vec<Handled>) {
        let mut pausing: HashSet<LaneId> = HashSet::new();
        let mut behind = Vec::new();
        for (job, handled) in jobs.into_iter().zip(handled) {
            let lane = job
                .lane
                .filter(|_| !self.stopping && self.comes_again(&job, &handled));
            if lane.is_some_and(|lane| !pausing.insert(lane)) {
                behind.push(job);
            } else {
                self.on_handled(job, handled);
            }
        }
        for mut job in behind.into_iter().rev() {
            self.end_trial(&mut job);
            self.counters.retried(1);
            self.observe(&job, Progress::Retried);
            job.failed_at.get_or_insert_with(Timestamp::now);
            job.attempt = job.attempt.saturating_add(1);
            self.lanes.put_back(job);
        }
    }

    /// Whether the runtime will hand the job to its handler once more.
    fn comes_again(&self, job: &Job, handled: &Handled) -> bool {
        let (fails_for_good, after) = match handled {
            Ok(Verdict::Ack | Verdict::Drop) => return false,
            Ok(Verdict::DeadLetter { .. }) => (true, None),
            Ok(Verdict::Retry { after }) => (false, *after),
            Err(failure) => {
                let failure = self.classifiers.classify(failure.clone());
                (failure.is_permanent(), failure.after())
            }
        };
        let last = fails_for_good || job.attempt >= self.settings.retry.max_attempts;
        let topic = job.delivery.topic();
        if last {
            let prefix = &self.dead_letters[job.source].prefix;
            return self.settings.dead_letter.topic(topic, prefix).is_none();
        }
        self.delay(job, after).is_none()
    }
}
