use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use foldhash::fast::RandomState;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use super::job::Job;
use super::lanes::LaneId;
use crate::handler::{Failure, Handled, all_failed};
use crate::time::IntoDuration;
use crate::{Error, ErrorKind, Result};

/// When a batch of events is handed to its handler: when it is full, or when its first event
/// has waited for so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchLimits {
    /// How many events it holds at most, at least 1. Default: 100.
    pub max_events: usize,
    /// How long its first event waits at most. Default: 50 ms.
    pub max_wait: Duration,
}

impl BatchLimits {
    /// Limits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for no events, and for what is no duration.
    pub fn new(max_events: usize, max_wait: impl IntoDuration) -> Result<Self> {
        if max_events == 0 {
            let error = Error::new(ErrorKind::Config, "a batch of 0 events can't be handled");
            return Err(error.with_note("let it hold at least 1"));
        }
        Ok(Self {
            max_events,
            max_wait: max_wait.into_duration()?,
        })
    }
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            max_events: 100,
            max_wait: Duration::from_millis(50),
        }
    }
}

/// The batches of a subscription that have not started.
#[derive(Debug)]
pub(super) struct Batches {
    limits: BatchLimits,
    /// Those that take more in, at most one for each handler.
    collecting: Vec<Collecting>,
    /// Those that wait for a place to run.
    collected: VecDeque<Collected>,
}

#[derive(Debug)]
struct Collecting {
    batch: Collected,
    lanes: HashSet<LaneId, RandomState>,
    due: Instant,
}

/// Jobs for one call of a handler.
#[derive(Debug)]
pub(super) struct Collected {
    /// The handler, by its index.
    pub(super) handler: usize,
    pub(super) jobs: Vec<Job>,
}

impl Batches {
    pub(super) fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            collecting: Vec::new(),
            collected: VecDeque::new(),
        }
    }

    /// Adds a job to the batch of a handler. Whether there is room for another one.
    pub(super) fn push(&mut self, handler: usize, job: Job) -> bool {
        let index = self.open(handler);
        let collecting = &mut self.collecting[index];
        collecting.lanes.extend(job.lane);
        collecting.batch.jobs.push(job);
        let full = collecting.batch.jobs.len() >= self.limits.max_events;
        if full {
            let full = self.collecting.swap_remove(index);
            self.collected.push_back(full.batch);
        }
        !full
    }

    /// The batch of a handler that takes more in, a new one if there is none.
    fn open(&mut self, handler: usize) -> usize {
        let known = self
            .collecting
            .iter()
            .position(|it| it.batch.handler == handler);
        known.unwrap_or_else(|| {
            self.collecting.push(Collecting {
                batch: Collected {
                    handler,
                    jobs: Vec::new(),
                },
                lanes: HashSet::default(),
                due: Instant::now() + self.limits.max_wait,
            });
            self.collecting.len() - 1
        })
    }

    /// The handler whose batch takes more in and holds the jobs of a lane that are at work.
    pub(super) fn collecting_lane(&self, lane: LaneId) -> Option<usize> {
        let found = self.collecting.iter().find(|it| it.lanes.contains(&lane));
        found.map(|it| it.batch.handler)
    }

    pub(super) fn is_collecting(&self) -> bool {
        !self.collecting.is_empty()
    }

    /// Waits until the first of the batches is due; forever if there is none. Cancel safe.
    pub(super) async fn due(&self) {
        match self.collecting.iter().map(|it| it.due).min() {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Closes the batches that are due.
    pub(super) fn expire(&mut self) {
        if self.collecting.is_empty() {
            return;
        }
        let now = Instant::now();
        let due = self.collecting.extract_if(.., |it| it.due <= now);
        self.collected.extend(due.map(|it| it.batch));
    }

    /// The next batch that may start.
    pub(super) fn next_collected(&mut self) -> Option<Collected> {
        self.collected.pop_front()
    }

    /// Takes out all jobs.
    pub(super) fn drain(&mut self) -> Vec<Job> {
        let collecting = self.collecting.drain(..).map(|it| it.batch);
        let batches = self.collected.drain(..).chain(collecting);
        batches.flat_map(|it| it.jobs).collect()
    }
}

/// Jobs and the call of their handler. The jobs stay within reach, so that they can be released
/// if it is given up.
pub(super) struct RunningBatch {
    jobs: Vec<Job>,
    future: BoxFuture<'static, Vec<Handled>>,
}

impl RunningBatch {
    pub(super) fn new(jobs: Vec<Job>, future: BoxFuture<'static, Vec<Handled>>) -> Self {
        Self { jobs, future }
    }

    /// The jobs, if the call has not ended.
    pub(super) fn into_jobs(self) -> Vec<Job> {
        self.jobs
    }
}

impl Future for RunningBatch {
    type Output = (Vec<Job>, Vec<Handled>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = catch_unwind(AssertUnwindSafe(|| self.future.as_mut().poll(context)));
        let handled = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(handled)) => handled,
            Err(panic) => all_failed(&Failure::from_panic(&*panic), self.jobs.len()),
        };
        Poll::Ready((std::mem::take(&mut self.jobs), handled))
    }
}
