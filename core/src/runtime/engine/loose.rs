//! Batches of which no jobs are made.
//!
//! As long as nothing is at work in any lane, what comes for a batch handler is collected as it came.
//! A handler that returns at once and acknowledges all of it, as most do, needs no more than that.
//! Whatever else comes up, an event for another handler or a handler that waits, makes jobs of them
//! first, in their order, each at work in its lane.

use std::sync::Arc;
use std::task::{Context, Poll};

use tracing::Span;

use super::Engine;
use super::arriving::new_job;
use crate::handler::{Registered, Verdict};
use crate::runtime::Progress;
use crate::runtime::batch::{Collected, Loose, LooseBatch, RunningBatch, poll_call};
use crate::runtime::job::Job;
use crate::transport::Settlement;

impl Engine {
    /// Puts a delivery whose lane is free into the batch of its handler, and calls that if the batch is
    /// full.
    pub(super) fn collect_arrived(
        &mut self,
        handler: usize,
        loose: Loose,
        context: &mut Context<'_>,
    ) {
        if !self.lanes.is_empty() || !self.batches.takes_loose(handler) {
            let job = self.occupy(loose.source, loose.arrival, loose.delivery);
            // Nothing waits in a lane that was free.
            self.batches.push(handler, job);
            return;
        }
        self.window.hold(&loose.delivery);
        if !self.batches.push_loose(handler, loose) {
            self.start_loose(context);
        }
    }

    /// Makes jobs of what is loose, so that lanes tell what is at work.
    pub(super) fn bind_loose(&mut self) {
        if let Some(loose) = self.batches.take_loose() {
            let jobs = self.bind(loose.deliveries);
            self.batches.push_bound(loose.handler, jobs, loose.due);
        }
    }

    /// Calls the handler of what is loose.
    pub(super) fn start_loose(&mut self, context: &mut Context<'_>) {
        let Some(loose) = self.batches.take_loose() else {
            return;
        };
        let is_current = |it: &Loose| self.settlements[it.source].is_current(it.delivery.token());
        if !self.has_place() || !loose.deliveries.iter().all(is_current) {
            let (handler, jobs) = (loose.handler, self.bind(loose.deliveries));
            return self.batches.push_collected(Collected { handler, jobs });
        }
        let LooseBatch {
            handler,
            deliveries,
            ..
        } = loose;
        let handlers = Arc::clone(&self.handlers);
        let Registered::Batch(handler) = handlers.registered(handler) else {
            unreachable!("only what is for batch handlers is collected");
        };
        let calls = deliveries
            .iter()
            .map(|it| (it.source, it.delivery.attempt(), &it.delivery));
        let started = match handler.call(&self.entries(calls)) {
            Ok(started) if started.rejected.is_empty() => started,
            started => {
                let jobs = self.bind(deliveries);
                return self.on_batch_started(jobs, started, Span::none());
            }
        };
        let count = deliveries.len();
        let mut future = self.in_time(started, count);
        match poll_call(&mut future, count, context) {
            Poll::Ready(handled) if handled.iter().all(|it| matches!(it, Ok(Verdict::Ack))) => {
                self.acknowledge(deliveries);
            }
            Poll::Ready(handled) => {
                let jobs = self.bind(deliveries);
                self.on_batch_handled(jobs, handled);
            }
            Poll::Pending => {
                let jobs = self.bind(deliveries);
                self.running_batches.push(RunningBatch::new(jobs, future));
            }
        }
    }

    fn acknowledge(&mut self, deliveries: Vec<Loose>) {
        self.counters.handled(deliveries.len());
        for Loose {
            source,
            arrival,
            delivery,
        } in deliveries
        {
            self.settlements[source].push(delivery.token(), Settlement::Ack);
            self.observe_step(source, &delivery, delivery.attempt(), Progress::Handled);
            self.window.done(arrival, &delivery);
        }
    }

    /// Makes jobs of deliveries that are at work together.
    fn bind(&mut self, deliveries: Vec<Loose>) -> Vec<Job> {
        let jobs = deliveries.into_iter().map(|loose| {
            let mut job = new_job(loose.source, loose.arrival, loose.delivery);
            job.lane = self.lane(loose.source, &job.delivery);
            let lane = job.lane;
            let at_work = self.lanes.enter(job);
            // Beside an earlier one of its key.
            let at_work = at_work.or_else(|| self.lanes.join(lane?, |_| true));
            at_work.expect("nothing waits in the lane but this job")
        });
        jobs.collect()
    }
}
