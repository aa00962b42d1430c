//! Events that may have ended the process of a member that had them.
//!
//! An event can't be noted before each start: that costs a round trip. It is noted once it is
//! suspect: delivered more often than it may be tried, where the server counts deliveries; else
//! delivered by a transport that knows that it was with a member that died. A process that dies
//! takes with it what ran beside the culprit, and what was only read ahead. So suspects run one at
//! a time: the one that was noted when the process died was the culprit.

use tokio::time::sleep;

use super::Engine;
use crate::ErrorKind;
use crate::backoff;
use crate::handler::FailureKind;
use crate::runtime::dead_letter::{Held, Reason};
use crate::runtime::job::{Job, Trial, Working};
use crate::transport::Settler;

impl Engine {
    /// Whether a job has to be noted before it starts.
    pub(super) fn is_suspect(&self, job: &Job) -> bool {
        job.trial == Trial::None && job.delivery.attempt() >= self.suspect_from[job.source]
    }

    /// Notes that a suspect is about to run, or lets it wait until no other one does.
    pub(super) fn try_suspect(&mut self, mut job: Job) {
        if self.trial {
            return self.suspects.push_back(job);
        }
        self.trial = true;
        job.trial = Trial::OnTrial;
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
        job.attempt = job.delivery.attempt().saturating_add(before);
        if before > 0 && job.attempt > self.settings.retry.max_attempts {
            let ended = job.attempt - 1;
            let text = format!("{ended} processes that handled it ended without an outcome");
            let kind = FailureKind::ProcessEnded;
            return self.dead_letter(job, Reason { kind, text: &text });
        }
        self.ready.push_front(job);
    }

    /// Notes that a job is not running any more, so that the next suspect may.
    pub(super) fn end_trial(&mut self, job: &mut Job) {
        if job.trial != Trial::OnTrial {
            return;
        }
        job.trial = Trial::Passed;
        self.trial = false;
        if let Some(next) = self.suspects.pop_front() {
            self.ready.push_front(next);
        }
    }
}
