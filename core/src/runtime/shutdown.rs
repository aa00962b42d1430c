use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long settling and leaving a group may take where something is to be done that no member may be
/// there for.
const LEAVING: Duration = Duration::from_secs(5);

/// Asks a subscription to stop, and says by when. Clones share the request.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    times: Arc<watch::Sender<Option<Times>>>,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    drain_until: Instant,
    deadline: Instant,
}

impl Shutdown {
    /// No request yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop within a time. The first request counts.
    ///
    /// Handlers that run get nine tenths of it, all but one second at the most; the rest is for
    /// settling and leaving the group.
    pub fn request(&self, within: Duration) {
        let leaving = (within / 10).min(Duration::from_secs(1));
        self.request_in_two(within - leaving, leaving);
    }

    /// Asks to stop: handlers that run get all of a time, and settling and leaving the group have
    /// [`LEAVING`] beside it. The first request counts.
    pub(super) fn request_to_leave(&self, within: Duration) {
        self.request_in_two(within, LEAVING);
    }

    fn request_in_two(&self, draining: Duration, leaving: Duration) {
        let drain_until = Instant::now() + draining;
        let asked = Times {
            drain_until,
            deadline: drain_until + leaving,
        };
        self.times.send_if_modified(|times| match times {
            Some(_) => false,
            None => times.replace(asked).is_none(),
        });
        self.requested.cancel();
    }

    /// Asks to stop as another request says that was made. The earlier one counts.
    pub(super) fn request_as(&self, other: &Self) {
        if let Some(asked) = other.times() {
            self.times.send_if_modified(|times| match times {
                Some(known) if known.deadline <= asked.deadline => false,
                _ => {
                    *times = Some(asked);
                    true
                }
            });
        }
        self.requested.cancel();
    }

    /// Whether a request was made.
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Waits for a request. Cancel safe.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Waits for a request, and then until handlers have had their time. Cancel safe.
    pub(super) async fn drain_expired(&self) {
        self.requested().await;
        let mut changes = self.times.subscribe();
        loop {
            let times = *changes.borrow_and_update();
            let Some(Times { drain_until, .. }) = times else {
                return;
            };
            tokio::select! {
                biased;
                () = sleep_until(drain_until) => return,
                // The sender lives as long as this call, so this is a change.
                _ = changes.changed() => {}
            }
        }
    }

    /// By when everything must have ended. The present without a request.
    pub(super) fn deadline(&self) -> Instant {
        self.times()
            .map_or_else(Instant::now, |times| times.deadline)
    }

    fn times(&self) -> Option<Times> {
        *self.times.borrow()
    }

    /// The same request as a token, for handlers.
    pub(super) fn token(&self) -> CancellationToken {
        self.requested.clone()
    }
}
