//! Counting what handlers are given.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use polybus::{BoxError, RawEvent, State};
use tokio::sync::Notify;
use tokio::time::{Duration, timeout};

use crate::measure::Stopwatch;

const HANDLED_WITHIN: Duration = Duration::from_secs(120);

/// Counts what was handled.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    first: OnceLock<Stopwatch>,
    handled: AtomicU64,
    wanted: AtomicU64,
    reached: Notify,
}

impl Tally {
    /// Counts events, and tells whoever waits for them.
    pub fn count(&self, events: u64) {
        let before = self.0.handled.fetch_add(events, Ordering::AcqRel);
        if before == 0 {
            self.0.first.get_or_init(Stopwatch::start);
        }
        let wanted = self.0.wanted.load(Ordering::Acquire);
        if before < wanted && before + events >= wanted {
            self.0.reached.notify_one();
        }
    }

    /// How many were counted.
    pub fn handled(&self) -> u64 {
        self.0.handled.load(Ordering::Acquire)
    }

    /// Runs since the first event: joining a group is not what is measured.
    pub fn since_first(&self) -> Result<&Stopwatch, BoxError> {
        Ok(self.0.first.get().ok_or("no event was handled")?)
    }

    /// Expects so many more. To be called before they can come.
    pub fn expect(&self, more: usize) {
        self.0.wanted.fetch_add(more as u64, Ordering::AcqRel);
    }

    /// Waits until those expected have come.
    pub async fn reached(&self) -> Result<(), BoxError> {
        let all = async {
            while self.handled() < self.0.wanted.load(Ordering::Acquire) {
                self.0.reached.notified().await;
            }
        };
        timeout(HANDLED_WITHIN, all).await.map_err(|_| {
            let wanted = self.0.wanted.load(Ordering::Acquire);
            format!("{} of {wanted} events were handled", self.handled())
        })?;
        Ok(())
    }
}

/// A handler that returns at once.
pub async fn count(State(tally): State<Tally>, RawEvent(_): RawEvent) {
    tally.count(1);
}
