//! Events that may have ended the process of a member that had them.
//!
//! An event can't be noted before each start: that costs a round trip. It is noted once it is
//! suspect: delivered more often than it may be tried, where the server counts deliveries; else
//! delivered by a transport that knows that it was with a member that died. A process that dies
//! takes with it what ran beside the culprit, and what was only read ahead. So suspects run one at
//! a time, and beside none of what was delivered before and is not suspect yet: the one that was noted
//! when the process died was the culprit.

use tokio::time::sleep;

use super::Engine;
use crate::ErrorKind;
use crate::backoff;
use crate::handler::FailureKind;
use crate::runtime::dead_letter::{Held, Reason};
use crate::runtime::job::{Job, Trial, Working};
use crate::transport::{Capabilities, Delivery, Settler};

/// Which events of a source are suspect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspicion {
    /// From which delivery on.
    from: u32,
    /// The server counts deliveries: each start that was noted is among them.
    counted: bool,
}

impl Suspicion {
    pub(super) fn new(can: Capabilities, max_attempts: u32) -> Self {
        let from = match (can.begin, can.delivery_count) {
            (false, _) => u32::MAX,
            (true, true) => max_attempts.saturating_add(1),
            // It says itself what was with a member that died.
            (true, false) => 2,
        };
        let counted = can.delivery_count;
        Self { from, counted }
    }

    pub(super) fn is_of(self, job: &Job) -> bool {
        job.trial == Trial::None && self.covers(&job.delivery)
    }

    /// Whether a job may not run beside others now: it is suspect, or has to wait for a suspect.
    pub(super) fn keeps_out(self, job: &Job, trial: bool) -> bool {
        self.is_of(job) || trial && job.trial == Trial::None && self.was_before(&job.delivery)
    }

    /// Whether a delivery is suspect before anybody asked.
    pub(super) fn covers(self, delivery: &Delivery) -> bool {
        let delivered = match self.counted {
            true => delivery.attempt(),
            false => delivery.deliveries(),
        };
        delivered >= self.from
    }

    /// Whether a delivery may have been with a member that died.
    pub(super) fn was_before(self, delivery: &Delivery) -> bool {
        self.covers(delivery) || self.from < u32::MAX && delivery.deliveries() > 1
    }
}

impl Engine {
    /// Whether a job has to be noted before it starts.
    pub(super) fn is_suspect(&self, job: &Job) -> bool {
        self.suspicions[job.source].is_of(job)
    }

    /// Lets a job go on that is no suspect, unless it has to wait for one.
    pub(super) fn beside_suspects(&mut self, mut job: Job) -> Option<Job> {
        let before = self.suspicions[job.source].was_before(&job.delivery);
        if !before || job.trial != Trial::None {
            return Some(job);
        }
        if self.trial {
            self.suspects.push_back(job);
            return None;
        }
        job.trial = Trial::Beside;
        self.beside += 1;
        Some(job)
    }

    /// Notes that a suspect is about to run, or lets it wait until no other one does.
    pub(super) fn try_suspect(&mut self, mut job: Job) {
        if self.trial || self.beside > 0 {
            return self.suspects.push_back(job);
        }
        self.trial = true;
        job.trial = Trial::Running;
        let (token, shutdown) = (job.delivery.token(), self.shutdown.clone());
        let settler = self.settlements[job.source].settler().clone();
        let control = std::sync::Arc::clone(&self.control);
        let noting = async move {
            let mut failures = 0;
            loop {
                let error = match settler.begin(token).await {
                    Ok(before) => return Held::Noted(before),
                    Err(error) if error.kind() == ErrorKind::Stale => return Held::Lost,
                    Err(error) if !error.retryable() => {
                        tracing::warn!(%error, "it can't be noted that a suspect event runs");
                        return Held::Noted(0);
                    }
                    Err(error) => error,
                };
                failures += 1;
                control.note_error(&error);
                tokio::select! {
                    biased;
                    () = shutdown.requested() => return Held::Stopped,
                    () = sleep(backoff::reconnect(failures)) => {}
                }
            }
        };
        self.held.push(Working::new(job, Box::pin(noting)));
    }

    /// Runs a suspect that was noted, or puts it away if it ended its process before.
    pub(super) fn on_noted(&mut self, mut job: Job, before: u32) {
        if !self.suspicions[job.source].counted {
            job.attempt = job.attempt.saturating_add(before);
        }
        if before > 0 && job.attempt > self.settings.retry.max_attempts {
            // This one is not made.
            job.attempt -= 1;
            let ended = job.attempt;
            let text = format!("at least {ended} processes that had it ended without an outcome");
            let kind = FailureKind::ProcessEnded;
            return self.dead_letter(job, Reason::new(kind, &text));
        }
        self.ready.push_front(job);
    }

    /// Notes that a job is not running any more, so that those may that waited for it.
    pub(super) fn end_trial(&mut self, job: &mut Job) {
        match job.trial {
            Trial::None | Trial::Passed => return,
            Trial::Running => self.trial = false,
            Trial::Beside => self.beside -= 1,
        }
        job.trial = Trial::Passed;
        if self.beside == 0 {
            for next in self.suspects.drain(..).rev() {
                self.ready.push_front(next);
            }
        }
    }
}
