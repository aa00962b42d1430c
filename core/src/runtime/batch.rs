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
use crate::transport::Delivery;
use crate::{Error, ErrorKind, Result};

/// For how many deliveries room is made before they come.
const MOST_ROOM: usize = 1024;

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
    /// One of which no jobs were made, while nothing is at work in any lane.
    loose: Option<LooseBatch>,
}

#[derive(Debug)]
struct Collecting {
    batch: Collected,
    lanes: HashSet<LaneId, RandomState>,
    due: Instant,
}

/// Deliveries for one call of a handler, of which no jobs were made. They are in no lane.
#[derive(Debug)]
pub(super) struct LooseBatch {
    /// The handler, by its index.
    pub(super) handler: usize,
    pub(super) deliveries: Vec<Loose>,
    pub(super) due: Instant,
}

/// A delivery of which no job was made.
#[derive(Debug)]
pub(super) struct Loose {
    /// The source it came from, by index.
    pub(super) source: usize,
    /// The number of its arrival.
    pub(super) arrival: u64,
    pub(super) delivery: Delivery,
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
            loose: None,
        }
    }

    /// Adds a job to the batch of a handler. Whether there is room for another one.
    pub(super) fn push(&mut self, handler: usize, job: Job) -> bool {
        let index = self.open(handler, None);
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

    /// Adds the jobs of what was loose.
    pub(super) fn push_bound(&mut self, handler: usize, jobs: Vec<Job>, due: Instant) {
        self.open(handler, Some(due));
        for job in jobs {
            self.push(handler, job);
        }
    }

    /// Adds a batch that takes no more in.
    pub(super) fn push_collected(&mut self, batch: Collected) {
        self.collected.push_back(batch);
    }

    /// Whether a delivery for a handler may be loose, as far as batches go.
    pub(super) fn takes_loose(&self, handler: usize) -> bool {
        self.collecting.is_empty() && self.loose_handler().is_none_or(|loose| loose == handler)
    }

    /// The handler that the loose deliveries are for, if there are any.
    pub(super) fn loose_handler(&self) -> Option<usize> {
        self.loose.as_ref().map(|loose| loose.handler)
    }

    /// Adds a delivery to the loose ones of a handler. Whether there is room for another one.
    pub(super) fn push_loose(&mut self, handler: usize, delivery: Loose) -> bool {
        let limits = self.limits;
        let loose = self.loose.get_or_insert_with(|| LooseBatch {
            handler,
            deliveries: Vec::with_capacity(limits.max_events.min(MOST_ROOM)),
            due: Instant::now() + limits.max_wait,
        });
        loose.deliveries.push(delivery);
        loose.deliveries.len() < limits.max_events
    }

    /// Takes out the loose deliveries.
    pub(super) fn take_loose(&mut self) -> Option<LooseBatch> {
        self.loose.take()
    }

    pub(super) fn is_loose_due(&self) -> bool {
        self.loose
            .as_ref()
            .is_some_and(|loose| loose.due <= Instant::now())
    }

    /// The batch of a handler that takes more in, a new one if there is none.
    fn open(&mut self, handler: usize, due: Option<Instant>) -> usize {
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
                due: due.unwrap_or_else(|| Instant::now() + self.limits.max_wait),
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
        !self.collecting.is_empty() || self.loose.is_some()
    }

    /// Waits until the first of the batches is due; forever if there is none. Cancel safe.
    pub(super) async fn due(&self) {
        let loose = self.loose.iter().map(|it| it.due);
        match self.collecting.iter().map(|it| it.due).chain(loose).min() {
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

    /// Takes out all jobs. Loose deliveries have none.
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
        let count = self.jobs.len();
        poll_call(&mut self.future, count, context)
            .map(|handled| (std::mem::take(&mut self.jobs), handled))
    }
}

/// Polls the call of a handler of so many entries. A panic is a failure of each, and so is another
/// number of verdicts.
pub(super) fn poll_call(
    call: &mut BoxFuture<'static, Vec<Handled>>,
    count: usize,
    context: &mut Context<'_>,
) -> Poll<Vec<Handled>> {
    let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context)));
    let failure = match polled {
        Ok(Poll::Ready(handled)) if handled.len() != count => {
            let returned = handled.len();
            let why = format!("the batch handler returned {returned} verdicts for {count} events");
            Failure::new(why)
        }
        Ok(polled) => return polled,
        Err(panic) => Failure::from_panic(&*panic),
    };
    Poll::Ready(all_failed(&failure, count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::Verdict;

    #[test]
    fn too_few_or_too_many_verdicts_settle_nothing() {
        for (returned, settled) in [(1, false), (2, true), (3, false)] {
            let handled = std::future::ready(vec![Ok(Verdict::Ack); returned]);
            let mut context = Context::from_waker(std::task::Waker::noop());
            let mut call: BoxFuture<'static, Vec<Handled>> = Box::pin(handled);
            let Poll::Ready(handled) = poll_call(&mut call, 2, &mut context) else {
                panic!("the handler has returned");
            };
            assert_eq!(handled.len(), 2);
            assert!(handled.iter().all(|it| it.is_ok() == settled));
        }
    }
}
