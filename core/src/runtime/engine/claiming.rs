//! Idempotency: jobs start with a claim, and end in the store before they are settled.

use std::collections::HashSet;

use tokio::time::Instant;

use super::Engine;
use crate::handler::Handled;
use crate::runtime::Progress;
use crate::runtime::claims::{Admission, Answer, Claims, Due, News};
use crate::runtime::job::Job;
use crate::runtime::lanes::LaneId;
use crate::transport::Settlement;

/// Waits for news of claims; forever without any. Cancel safe.
pub(super) async fn next_answer(claims: Option<&mut Claims>) -> Answer {
    match claims {
        Some(claims) => claims.next().await,
        None => std::future::pending().await,
    }
}

impl Engine {
    /// Asks for the claim of a job that a handler takes.
    pub(super) fn enlist(&mut self, job: &mut Job) {
        let Some(claims) = &mut self.claims else {
            return;
        };
        if let Ok(event) = job.delivery.event()
            && let Some((handler, _)) = self.handlers.find(event)
        {
            job.claim = Some(claims.enlist(handler, event));
        }
    }

    /// The job, if it may start. Otherwise it waits for its claim, or was handled before.
    pub(super) fn admit(&mut self, job: Job) -> Option<Job> {
        let Some(claims) = &mut self.claims else {
            return Some(job);
        };
        match claims.admit(job) {
            Admission::Start(job) => return Some(job),
            Admission::Done(mut job) => {
                self.end_trial(&mut job);
                self.counters.duplicates(1);
                self.settle(job, Settlement::Ack, Progress::Duplicate);
            }
            Admission::Failed(job, failure) => self.on_handled(job, Handled::Err(failure)),
            Admission::Parked => {}
        }
        None
    }

    /// Settles a job's delivery, once the store knows what became of its claim.
    pub(super) fn settle_claimed(&mut self, claim: Option<u64>, progress: Progress, due: Due) {
        let completed = matches!(progress, Progress::Handled | Progress::Dropped);
        let due = match (&mut self.claims, claim) {
            (Some(claims), Some(number)) => claims.end(number, completed, due),
            _ => Some(due),
        };
        self.settle_due(due);
    }

    fn settle_due(&mut self, due: impl IntoIterator<Item = Due>) {
        for (source, token, settlement) in due {
            self.settlements[source].push(token, settlement);
        }
    }

    /// Notes what the store answered.
    pub(super) fn on_claims(&mut self, answer: Answer) {
        let Some(claims) = &mut self.claims else {
            return;
        };
        let News { ready, due, lost } = claims.on_answer(answer);
        self.ready.extend(ready);
        self.counters.claims_lost(lost);
        self.settle_due(due);
    }

    /// Tells the store what has ended, within half of the time that is left.
    pub(super) async fn finish_claims(&mut self) {
        let left = self.shutdown.deadline() - Instant::now();
        if let Some(claims) = &mut self.claims {
            let (due, lost) = claims.finish(Instant::now() + left / 2).await;
            self.counters.claims_lost(lost);
            self.settle_due(due);
        }
    }

    /// Takes jobs out of a batch whose claims ran out while it was collected, and those behind
    /// them in their lanes. They come again with a new claim.
    pub(super) fn keep_claimed(&mut self, jobs: Vec<Job>) -> Vec<Job> {
        let Some(claims) = &self.claims else {
            return jobs;
        };
        let unclaimed = jobs.iter().filter(|job| !claims.holds(job));
        let lanes: HashSet<LaneId> = unclaimed.filter_map(|job| job.lane).collect();
        let keeps =
            |job: &Job| claims.holds(job) && job.lane.is_none_or(|lane| !lanes.contains(&lane));
        let (kept, back): (Vec<_>, Vec<_>) = jobs.into_iter().partition(keeps);
        let mut at_work: HashSet<LaneId> = HashSet::new();
        let mut behind = Vec::new();
        for job in back {
            if job.lane.is_some_and(|lane| !at_work.insert(lane)) {
                behind.push(job);
            } else {
                self.ready.push_back(job);
            }
        }
        for job in behind.into_iter().rev() {
            self.lanes.put_back(job);
        }
        kept
    }
}
