//! A recess of a subscription: it leaves its groups, something is done to them, and it joins them
//! again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Notify, oneshot};

use crate::{Error, ErrorKind, Result};

/// What is to be done, and who waits for it.
pub(super) struct Recess {
    /// How long handlers that run may take to finish.
    pub(super) within: Duration,
    /// Runs while the subscription is in no group.
    pub(super) work: BoxFuture<'static, Result<()>>,
    /// Told when the subscription is back, or why not.
    pub(super) done: oneshot::Sender<Result<()>>,
}

/// Asks a subscription for a recess, one at a time.
#[derive(Default)]
pub(super) struct Recesses {
    turn: tokio::sync::Mutex<()>,
    asked: Mutex<Option<Recess>>,
    came: Notify,
    taken: AtomicBool,
}

impl Recesses {
    /// Waits for the turn, then for the end of the recess.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the recess takes place or not.
    pub(super) async fn ask(
        &self,
        within: Duration,
        work: BoxFuture<'static, Result<()>>,
    ) -> Result<()> {
        let _turn = self.turn.lock().await;
        let (done, outcome) = oneshot::channel();
        let recess = Recess { within, work, done };
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(recess);
        self.came.notify_one();
        outcome.await.unwrap_or_else(|_| {
            let why = "the subscription stopped before it was back in its groups";
            Err(Error::new(ErrorKind::Closed, why))
        })
    }

    /// Waits until somebody asks who is still there. Cancel safe.
    pub(super) async fn asked(&self) -> Recess {
        loop {
            let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let recess = { asked }.take();
            match recess {
                Some(recess) if !recess.done.is_closed() => return recess,
                Some(_) => {}
                None => self.came.notified().await,
            }
        }
    }

    pub(super) fn set_taken(&self, taken: bool) {
        self.taken.store(taken, Ordering::Release);
    }

    pub(super) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }
}
