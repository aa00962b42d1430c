use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Asks a subscription to stop, and says by when. Clones share the request.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    times: Arc<OnceLock<Times>>,
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
        let deadline = Instant::now() + within;
        let reserve = (within / 10).min(Duration::from_secs(1));
        self.times.get_or_init(|| Times {
            drain_until: deadline - reserve,
            deadline,
        });
        self.requested.cancel();
    }

    /// Asks to stop as another request says that was made.
    pub(super) fn request_as(&self, other: &Self) {
        if let Some(times) = other.times.get() {
            self.times.get_or_init(|| *times);
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
        if let Some(times) = self.times.get() {
            sleep_until(times.drain_until).await;
        }
    }

    /// By when everything must have ended. The present without a request.
    pub(super) fn deadline(&self) -> Instant {
        self.times
            .get()
            .map_or_else(Instant::now, |times| times.deadline)
    }

    /// The same request as a token, for handlers.
    pub(super) fn token(&self) -> CancellationToken {
        self.requested.clone()
    }
}
