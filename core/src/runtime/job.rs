use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::BoxFuture;

use super::lanes::LaneId;
use crate::Timestamp;
use crate::event::on_behalf_of;
use crate::handler::{Failure, Handled, Later};
use crate::transport::Delivery;

/// A delivery on its way through the runtime. Boxed, because it goes through a dozen hands: to move it
/// from each to the next cost more than a quarter of what the runtime does for an event.
#[derive(Debug)]
pub(super) struct Job(Box<Task>);

/// What a [`Job`] holds.
#[derive(Debug)]
pub(super) struct Task {
    /// The source it came from, by index.
    pub(super) source: usize,
    /// The number of its arrival.
    pub(super) arrival: u64,
    /// The lane it occupies. `None`: it is unordered.
    pub(super) lane: Option<LaneId>,
    /// The number of its claim, if it needs one.
    pub(super) claim: Option<u64>,
    /// Where its verdict comes from, if its handler has taken that out of our hands.
    pub(super) later: Option<Later>,
    /// Which attempt is next or running.
    pub(super) attempt: u32,
    /// When it failed first, in this process.
    pub(super) failed_at: Option<Timestamp>,
    /// What is known of whether it ends its process.
    pub(super) trial: Trial,
    /// The rules that have to wait let it pass.
    pub(super) checked: bool,
    pub(super) delivery: Delivery,
}

/// Whether a job may be one that ends its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trial {
    /// Nobody asked.
    None,
    /// It was noted that it runs, and no other suspect does.
    Running,
    /// It is not suspect yet, but was with a member that died: no suspect runs beside it.
    Beside,
    /// It ran, and the process lives.
    Passed,
}

impl Job {
    pub(super) fn new(task: Task) -> Self {
        Self(Box::new(task))
    }
}

impl Deref for Job {
    type Target = Task;

    fn deref(&self) -> &Task {
        &self.0
    }
}

impl DerefMut for Job {
    fn deref_mut(&mut self) -> &mut Task {
        &mut self.0
    }
}

/// A job and what is being done for it. The job stays within reach, so that it can be released
/// if the work is given up.
pub(super) struct Working<T> {
    job: Option<Job>,
    future: BoxFuture<'static, T>,
}

impl<T> Working<T> {
    pub(super) fn new(job: Job, future: BoxFuture<'static, T>) -> Self {
        Self {
            job: Some(job),
            future,
        }
    }

    /// The job, if its work has not ended.
    pub(super) fn into_job(self) -> Option<Job> {
        self.job
    }
}

/// What comes of polling a job's work: a panic is a failure like any other.
pub(super) trait FromPanic {
    fn from_panic(failure: Failure) -> Self;
}

impl FromPanic for Handled {
    fn from_panic(failure: Failure) -> Self {
        Err(failure)
    }
}

impl<T: FromPanic> Future for Working<T> {
    type Output = (Job, T);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { job, future } = &mut *self;
        let event = job.as_ref().and_then(|job| job.delivery.event().ok());
        let work = || on_behalf_of(event, || future.as_mut().poll(context));
        let polled = catch_unwind(AssertUnwindSafe(work));
        let result = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => result,
            Err(panic) => T::from_panic(Failure::from_panic(&*panic)),
        };
        let job = self
            .job
            .take()
            .expect("a future is not polled after it was ready");
        Poll::Ready((job, result))
    }
}
