//! What becomes of a job: settled, tried again, put away, given back.

use std::time::Duration;

use tokio::time::sleep;

use super::Engine;
use crate::backoff;
use crate::config::Unhandled;
use crate::handler::{Failure, Handled, Verdict};
use crate::runtime::dead_letter::{Held, Origin, letter};
use crate::runtime::job::{Job, Working};
use crate::runtime::{Progress, Step};
use crate::transport::Settlement;
use crate::{Error, ErrorKind};

impl Engine {
    pub(super) fn on_unhandled(&mut self, job: Job) {
        let reason = || {
            let event_type = job.delivery.event().map_or("", crate::Event::event_type);
            format!("no handler of `{}` takes `{event_type}`", self.name)
        };
        match self.settings.unhandled {
            Unhandled::Ack => {
                self.counters.unhandled(1);
                self.settle(job, Settlement::Ack, Progress::Unhandled);
            }
            Unhandled::DeadLetter => {
                let reason = reason();
                self.dead_letter(job, &reason);
            }
            Unhandled::Stop => {
                let error = Error::new(ErrorKind::Handler, reason())
                    .with_topic(job.delivery.topic().name())
                    .with_note("add a handler, or set `unhandled` of the subscription to `ack`");
                self.release(job);
                self.fail(error);
            }
        }
    }

    pub(super) fn on_handled(&mut self, job: Job, handled: Handled) {
        match handled {
            Ok(Verdict::Ack) => {
                self.counters.handled(1);
                self.settle(job, Settlement::Ack, Progress::Handled);
            }
            Ok(Verdict::Drop) => {
                self.counters.dropped(1);
                self.settle(job, Settlement::Ack, Progress::Dropped);
            }
            Ok(Verdict::Retry { after }) => self.retry(job, after, "the handler asked for it"),
            Ok(Verdict::DeadLetter { reason }) => self.dead_letter(job, &reason),
            Err(failure) => {
                self.control.note_error(&failure);
                self.on_failure(job, &failure);
            }
        }
    }

    fn on_failure(&mut self, job: Job, failure: &Failure) {
        let reason = failure.to_string();
        if failure.is_permanent() {
            self.dead_letter(job, &reason);
        } else {
            self.retry(job, None, &reason);
        }
    }

    /// Holds the job for a pause, or makes it a dead letter after its last attempt.
    fn retry(&mut self, job: Job, after: Option<Duration>, reason: &str) {
        let retry = &self.settings.retry;
        if job.attempt >= retry.max_attempts {
            return self.dead_letter(job, reason);
        }
        let pause = after.unwrap_or_else(|| backoff::delay(retry.base, retry.max, job.attempt));
        self.pause(job, pause, reason);
    }

    fn pause(&mut self, job: Job, pause: Duration, reason: &str) {
        tracing::debug!(subscription = %self.name, topic = %job.delivery.topic(),
            event_id = job.delivery.event().ok().map(crate::Event::id), attempt = job.attempt,
            reason, ?pause, outcome = "retry", "handled");
        if self.stopping {
            return self.release(job);
        }
        self.counters.retried(1);
        self.observe(&job, Progress::Retried);
        let shutdown = self.shutdown.clone();
        let held = async move {
            tokio::select! {
                biased;
                () = shutdown.requested() => Held::Stopped,
                () = sleep(pause) => Held::TryAgain,
            }
        };
        self.held.push(Working::new(job, Box::pin(held)));
    }

    /// Publishes the job's dead letter and settles it then. Without a topic for dead letters the
    /// job is held and tried again: nothing is thrown away unasked.
    pub(super) fn dead_letter(&mut self, job: Job, reason: &str) {
        self.control.note_error(&reason);
        let prefix = &self.dead_letters[job.source].prefix;
        let topic = job.delivery.topic();
        let Some(topic) = self.settings.dead_letter.topic(topic, prefix) else {
            let pause = self.settings.retry.max;
            tracing::error!(subscription = %self.name, topic = %job.delivery.topic(), reason,
                "an event failed for good and the subscription has no dead letters: it is held");
            return self.pause(job, pause, reason);
        };
        let letters = self.dead_letters[job.source].clone();
        let origin = Origin {
            transport: &letters.transport,
            group: &self.group,
            subscription: &self.name,
            reason,
        };
        let letter = letter(&job, topic, &origin);
        let work = letters.publish(letter, self.shutdown.clone());
        self.held.push(Working::new(job, Box::pin(work)));
    }

    pub(super) fn on_held(&mut self, mut job: Job, held: Held) {
        match held {
            Held::TryAgain if self.stopping => self.release(job),
            Held::TryAgain => {
                job.attempt = job.attempt.saturating_add(1);
                self.ready.push_back(job);
            }
            Held::DeadLettered => {
                self.counters.dead_lettered(1);
                self.settle(job, Settlement::Ack, Progress::DeadLettered);
            }
            Held::Stopped => self.release(job),
        }
    }

    /// Gives a job back to its group.
    pub(super) fn release(&mut self, job: Job) {
        self.counters.released(1);
        // A job that is held hears of a stop before the engine does.
        self.unfinished += usize::from(self.stopping || self.shutdown.is_requested());
        self.settle(job, Settlement::Release, Progress::Released);
    }

    pub(super) fn observe(&self, job: &Job, progress: Progress) {
        if let Some(observer) = &self.observer {
            observer.observe(&Step {
                subscription: &self.name,
                transport: &self.calls[job.source].transport,
                delivery: &job.delivery,
                attempt: job.attempt,
                progress,
            });
        }
    }

    /// Ends a job and lets the next of its lane go on.
    pub(super) fn settle(&mut self, job: Job, settlement: Settlement, progress: Progress) {
        self.observe(&job, progress);
        self.arrivals.done(job.arrival);
        let delivery = &job.delivery;
        tracing::debug!(subscription = %self.name, topic = %delivery.topic(),
            event_type = delivery.event().ok().map(crate::Event::event_type),
            event_id = delivery.event().ok().map(crate::Event::id), attempt = job.attempt, outcome = progress.as_str(), "settled");
        self.settlements[job.source].push(delivery.token(), settlement);
        let lane = job.lane;
        drop(job);
        if let Some(next) = self.lanes.leave(lane) {
            self.ready.push_back(next);
        }
    }
}
