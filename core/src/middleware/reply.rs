//! How an outcome gets back to whoever published.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::route::Fallback;
use crate::transport::Outcome;
use crate::{Effect, Error, ErrorKind};

/// What became of an event.
#[derive(Debug)]
pub(super) struct Completed {
    pub(super) outcome: Outcome,
    /// Where it went instead of its route's transport.
    pub(super) fallback: Option<Arc<Fallback>>,
}

impl Completed {
    pub(super) fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            fallback: None,
        }
    }
}

/// Who waits for the outcome of an event.
#[derive(Debug)]
pub(super) enum Reply {
    /// The caller drives the batch itself and knows the event by a number.
    Own(u32),
    /// One caller, or nobody any more.
    One(oneshot::Sender<Completed>),
    /// One caller that waits for many.
    Many(Share),
}

impl Reply {
    /// Answers a caller that does not drive the batch.
    pub(super) fn send(self, completed: Completed) {
        match self {
            // Only the driver of the batch answers these.
            Self::Own(_) => {}
            // Nobody waits: the event was enqueued and its future dropped.
            Self::One(sender) => drop(sender.send(completed)),
            Self::Many(share) => share.send(completed.outcome),
        }
    }
}

/// The outcomes of many events that one caller waits for: one wake-up for all of them.
#[derive(Debug, Default)]
pub(super) struct Tally {
    outcomes: Mutex<Vec<(u32, Outcome)>>,
    open: AtomicUsize,
    done: Notify,
}

/// The part of one event in a [`Tally`]. Dropped unanswered, its outcome is unknown.
#[derive(Debug)]
pub(super) struct Share {
    tally: Arc<Tally>,
    index: u32,
    answered: bool,
}

impl Tally {
    pub(super) fn share(self: &Arc<Self>, index: u32) -> Share {
        self.open.fetch_add(1, Ordering::AcqRel);
        Share {
            tally: Arc::clone(self),
            index,
            answered: false,
        }
    }

    /// Waits until every share is answered, and returns the outcomes by their numbers.
    pub(super) async fn wait(&self) -> Vec<(u32, Outcome)> {
        while self.open.load(Ordering::Acquire) > 0 {
            // The permit of an earlier `notify_one` is kept, so none is missed.
            self.done.notified().await;
        }
        std::mem::take(&mut *self.outcomes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer(&self, index: u32, outcome: Outcome) {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.push((index, outcome));
        drop(outcomes);
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }
}

impl Share {
    fn send(mut self, outcome: Outcome) {
        self.answered = true;
        self.tally.answer(self.index, outcome);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if !self.answered {
            self.tally
                .answer(self.index, Outcome::Unknown(never_answered()));
        }
    }
}

/// The outcome of an event whose batch was torn down with its runtime.
pub(super) fn never_answered() -> Error {
    let message = "the bus ended before the transport answered";
    Error::new(ErrorKind::Closed, message)
        .with_operation("publish")
        .with_effect(Effect::Unknown)
}

/// A transport that keeps its contract returns one outcome for each event: what is missing is
/// unknown.
pub(super) fn complete(outcomes: &mut Vec<Outcome>, count: usize) {
    let missing = || {
        Outcome::Unknown(
            Error::new(ErrorKind::Transport, "the transport reported no outcome")
                .with_operation("publish")
                .with_effect(Effect::Unknown),
        )
    };
    outcomes.resize_with(count, missing);
}
