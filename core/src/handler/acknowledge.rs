//! Settling an event after its handler has returned.

use std::fmt;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Call, Failure, FromDelivery, Handled, IntoVerdict, Verdict};
use crate::{Error, ErrorKind, Result};

/// Lets a handler return before its event is settled: an extractor. Whoever has it says later
/// what becomes of the event.
///
/// ```
/// use polybus_core::handler::{Acknowledge, RawEvent};
///
/// async fn hand_over(RawEvent(event): RawEvent, acknowledge: Acknowledge) {
///     tokio::spawn(async move {
///         println!("{} is at work elsewhere", event.id());
///         acknowledge.ack();
///     });
/// }
/// # fn check<A, H: polybus_core::handler::Handler<A, ()>>(_: H) {}
/// # check(hand_over);
/// ```
///
/// Once the handler has returned `Ok`, `()` or [`Verdict::Ack`], the event waits for what is said
/// here. It takes none of the `concurrency` places any more; the next event of its key waits for it, and it
/// counts for what a subscription has in flight (`max_in_flight`), which bounds how many can wait
/// so. Any other verdict of the handler, and its error, count at once.
///
/// - Dropped without a word it is a failed attempt, as an error is.
/// - `handler_timeout` is for both: the handler, and the time until something is said. After it the
///   attempt has failed, and what is said does not count.
/// - At a stop it has the time that handlers have. Then the event is given back to its group.
///
/// For single events; a batch handler has verdicts for each entry.
#[must_use = "dropped, it is a failed attempt"]
pub struct Acknowledge {
    verdict: oneshot::Sender<Handled>,
    deadline: Option<Instant>,
}

/// The other end.
#[derive(Debug)]
pub(crate) struct Later {
    verdict: oneshot::Receiver<Handled>,
    pub(crate) deadline: Option<Instant>,
}

impl Acknowledge {
    /// The event is done. Whether that counts: not if its time was over, its handler failed, or
    /// the subscription has stopped.
    pub fn ack(self) -> bool {
        self.settle(Verdict::Ack)
    }

    /// Says what becomes of the event: with a [`Verdict`], or a `Result` whose error is a failed
    /// attempt. Whether that counts, as for [`ack`](Self::ack).
    pub fn settle(self, verdict: impl IntoVerdict) -> bool {
        self.verdict.send(verdict.into_verdict()).is_ok()
    }

    /// When what is said does not count any more, if the handler's time is limited.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Waits until what is said does not count any more. Cancel safe.
    pub async fn expired(&mut self) {
        self.verdict.closed().await;
    }
}

impl<S> FromDelivery<S> for Acknowledge {
    fn from_delivery(call: &Call<'_, S>) -> Result<Self> {
        let (sender, receiver) = oneshot::channel();
        let deadline = call.info().deadline;
        let later = Later {
            verdict: receiver,
            deadline,
        };
        if call.later.replace(Some(later)).is_some() {
            let message = "a handler has two arguments `Acknowledge`";
            return Err(Error::new(ErrorKind::Handler, message).with_note("keep one"));
        }
        Ok(Self {
            verdict: sender,
            deadline,
        })
    }
}

impl Later {
    /// Waits for what is said.
    pub(crate) async fn verdict(self) -> Handled {
        let dropped =
            || Failure::new("the `Acknowledge` of the handler was dropped without a word");
        self.verdict.await.unwrap_or_else(|_| Err(dropped()))
    }
}

impl fmt::Debug for Acknowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acknowledge")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
