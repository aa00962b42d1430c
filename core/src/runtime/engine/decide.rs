//! What becomes of a job: settled, tried again, put away, given back.

use std::time::Duration;

use tokio::time::sleep;

use super::Engine;
use crate::backoff;
use crate::config::Unhandled;
use crate::handler::{Failure, FailureKind, Handled, Verdict};
use crate::runtime::dead_letter::{Held, Origin, Reason, Replacement, letter};
use crate::runtime::job::{Job, Working};
use crate::runtime::{Progress, Step};
use crate::transport::{Delivery, Settlement};
use crate::{Error, ErrorKind, Event, Timestamp, Topic};

impl Engine {
    pub(super) fn on_unhandled(&mut self, mut job: Job) {
        self.end_trial(&mut job);
        let reason = || {
            let event_type = job.delivery.event().map_or("", Event::event_type);
            format!("no handler of `{}` takes `{event_type}`", self.name)
        };
        match self.settings.unhandled {
            Unhandled::Ack => {
                self.counters.unhandled(1);
                self.settle(job, Settlement::Ack, Progress::Unhandled);
            }
            Unhandled::DeadLetter => {
                let (kind, text) = (FailureKind::Unhandled, reason());
                self.dead_letter(job, Reason::new(kind, &text));
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

    pub(super) fn on_handled(&mut self, mut job: Job, handled: Handled) {
        self.end_trial(&mut job);
        let kind = FailureKind::Verdict;
        match handled {
            Ok(Verdict::Ack) => {
                self.counters.handled(1);
                self.settle(job, Settlement::Ack, Progress::Handled);
            }
            Ok(Verdict::Drop) => {
                self.counters.dropped(1);
                self.settle(job, Settlement::Ack, Progress::Dropped);
            }
            Ok(Verdict::Retry { after }) => {
                let text = "the handler asked for it";
                self.retry(job, after, Reason::new(kind, text));
            }
            Ok(Verdict::DeadLetter { reason }) => {
                let text = &reason;
                self.dead_letter(job, Reason::new(kind, text));
            }
            Err(failure) => {
                self.control.note_error(&failure);
                self.on_failure(job, failure);
            }
        }
    }

    fn on_failure(&mut self, job: Job, failure: Failure) {
        let failure = self.classifiers.classify(failure);
        let (kind, text) = (failure.kind(), failure.to_string());
        let faults = failure.faults();
        let reason = Reason {
            kind,
            text: &text,
            faults,
        };
        if failure.is_permanent() {
            self.dead_letter(job, reason);
        } else {
            self.retry(job, failure.after(), reason);
        }
    }

    /// Holds the job for a pause, in its lane or outside of it, or makes it a dead letter after its
    /// last attempt.
    fn retry(&mut self, job: Job, after: Option<Duration>, reason: Reason<'_>) {
        let retry = &self.settings.retry;
        if job.attempt >= retry.max_attempts {
            return self.dead_letter(job, reason);
        }
        if let Some((topic, pause)) = self.delay(&job, after) {
            return self.put_off(job, topic, pause, reason);
        }
        let pause = after.unwrap_or_else(|| backoff::delay(retry.base, retry.max, job.attempt));
        self.pause(job, pause, reason);
    }

    /// The topic in which a failed job waits, and how long, if it does not wait in its lane.
    pub(super) fn delay(&self, job: &Job, after: Option<Duration>) -> Option<(Topic, Duration)> {
        let retry = &self.settings.retry;
        let delayed = retry.delayed.as_ref()?;
        let topic = job.delivery.topic();
        // Nobody reads the topics that would belong to one that discovery found.
        if self.stopping || !self.named_topics[job.source].contains(topic) {
            return None;
        }
        let pause = delayed.pause(job.attempt, after, retry.max)?;
        let prefix = &self.dead_letters[job.source].prefix;
        let topic = delayed.topic.fill(topic, prefix, &self.group, pause);
        // What asked for less than the topic's pause comes in its own time.
        Some((topic, after.map_or(pause, |after| after.min(pause))))
    }

    fn pause(&mut self, mut job: Job, pause: Duration, reason: Reason<'_>) {
        tracing::debug!(subscription = %self.name, topic = %job.delivery.topic(),
            event_id = job.delivery.event().ok().map(Event::id), attempt = job.attempt,
            reason = reason.text, ?pause, outcome = "retry", "handled");
        job.failed_at.get_or_insert_with(Timestamp::now);
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
    pub(super) fn dead_letter(&mut self, mut job: Job, reason: Reason<'_>) {
        self.end_trial(&mut job);
        self.control.note_error(&reason.text);
        let prefix = &self.dead_letters[job.source].prefix;
        let topic = job.delivery.topic();
        let Some(topic) = self.settings.dead_letter.topic(topic, prefix) else {
            let pause = self.settings.retry.max;
            tracing::error!(subscription = %self.name, topic = %job.delivery.topic(),
                reason = reason.text,
                "an event failed for good and the subscription has no dead letters: it is held");
            return self.pause(job, pause, reason);
        };
        self.replace(job, Replacement::DeadLetter, topic, reason, None);
    }

    /// Stores the job's event for a later attempt and settles the job then.
    fn put_off(&mut self, job: Job, topic: Topic, pause: Duration, reason: Reason<'_>) {
        let not_before = Timestamp::now()
            .checked_add(pause)
            .unwrap_or(Timestamp::MAX);
        self.replace(job, Replacement::Delayed, topic, reason, Some(not_before));
    }

    fn replace(
        &mut self,
        job: Job,
        what: Replacement,
        topic: Topic,
        reason: Reason<'_>,
        not_before: Option<Timestamp>,
    ) {
        let letters = self.dead_letters[job.source].clone();
        let event = job.delivery.event().ok();
        let handler = event.and_then(|event| self.handlers.takes(event.event_type()));
        let origin = Origin {
            transport: &letters.transport,
            group: &self.group,
            subscription: &self.name,
            handler,
            reason,
            not_before,
        };
        let letter = letter(&job, topic, &origin);
        let token = job.delivery.token();
        let work = letters.publish(token, what, letter, self.shutdown.clone());
        self.held.push(Working::new(job, Box::pin(work)));
    }

    pub(super) fn on_held(&mut self, mut job: Job, held: Held) {
        match held {
            Held::TryAgain | Held::Noted(_) if self.stopping => self.release(job),
            Held::TryAgain => {
                job.attempt = job.attempt.saturating_add(1);
                self.ready.push_back(job);
            }
            Held::Stored { what, settled } => self.on_stored(job, what, settled),
            Held::Noted(before) => self.on_noted(job, before),
            Held::Admitted | Held::Refused(_) if self.stopping => self.release(job),
            Held::Admitted => {
                job.checked = true;
                self.ready.push_front(job);
            }
            Held::Refused(error) => self.on_refused(job, error),
            // To settle it is stale, and counted as such.
            Held::Lost => self.release(job),
            Held::Stopped => self.release(job),
        }
    }

    fn on_stored(&mut self, job: Job, what: Replacement, settled: bool) {
        let progress = match what {
            Replacement::DeadLetter => {
                self.counters.dead_lettered(1);
                Progress::DeadLettered
            }
            Replacement::Delayed => {
                self.counters.delayed(1);
                Progress::Delayed
            }
        };
        if settled {
            self.window.settled();
            self.end(job, progress);
        } else {
            self.settle(job, Settlement::Ack, progress);
        }
    }

    /// Gives a job back to its group.
    pub(super) fn release(&mut self, mut job: Job) {
        self.end_trial(&mut job);
        self.counters.released(1);
        // A job that is held hears of a stop before the engine does.
        self.unfinished += usize::from(self.stopping || self.shutdown.is_requested());
        self.settle(job, Settlement::Release, Progress::Released);
    }

    pub(super) fn observe(&self, job: &Job, progress: Progress) {
        self.observe_step(job.source, &job.delivery, job.attempt, progress);
    }

    pub(super) fn observe_step(
        &self,
        source: usize,
        delivery: &Delivery,
        attempt: u32,
        progress: Progress,
    ) {
        if let Some(observer) = &self.observer {
            observer.observe(&Step {
                subscription: &self.name,
                transport: &self.calls[source].transport,
                delivery,
                attempt,
                progress,
            });
        }
    }

    /// Settles a job and ends it.
    pub(super) fn settle(&mut self, job: Job, settlement: Settlement, progress: Progress) {
        let due = (job.source, job.delivery.token(), settlement);
        self.settle_claimed(job.claim, progress, due);
        self.end(job, progress);
    }

    /// Ends a job and lets the next of its lane go on.
    fn end(&mut self, job: Job, progress: Progress) {
        self.observe(&job, progress);
        self.window.done(job.arrival, &job.delivery);
        let delivery = &job.delivery;
        tracing::debug!(subscription = %self.name, topic = %delivery.topic(),
            event_type = delivery.event().ok().map(Event::event_type),
            event_id = delivery.event().ok().map(Event::id), attempt = job.attempt,
            outcome = progress.as_str(), "settled");
        let lane = job.lane;
        drop(job);
        if let Some(next) = self.lanes.leave(lane) {
            self.ready.push_back(next);
        }
    }
}
