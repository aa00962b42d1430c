//! What all pipelines of a bus share.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::failed::{FailedStore, Unsent};
use super::room::Room;
use crate::config::PublishingConfig;
use crate::transport::Outcome;

/// What all pipelines of a bus share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) room: Arc<Room>,
    pub(super) counters: Counters,
    pub(super) failed: FailedStore,
    pub(super) unsent: Unsent,
    /// Ends what still runs at the deadline of the bus's end.
    pub(super) cut: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// How many transactions are being published.
    pub(super) transactions: watch::Sender<usize>,
    runtime: Handle,
}

impl Shared {
    /// Tasks run on the present runtime.
    pub(super) fn new(config: &PublishingConfig) -> Self {
        Self {
            room: Arc::new(Room::new(config)),
            counters: Counters::default(),
            failed: FailedStore::new(config.failed.clone()),
            unsent: Unsent::default(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
            transactions: watch::Sender::new(0),
            runtime: Handle::current(),
        }
    }

    /// A task that the end of the bus waits for.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }
}

/// What became of the events of a bus.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) retried: AtomicU64,
}

impl Counters {
    pub(super) fn add(&self, accepted: u64, rejected: u64, unknown: u64) {
        for (counter, count) in [
            (&self.accepted, accepted),
            (&self.rejected, rejected),
            (&self.unknown, unknown),
        ] {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn count(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Accepted(_) => self.add(1, 0, 0),
            Outcome::Rejected(_) => self.add(0, 1, 0),
            Outcome::Unknown(_) => self.add(0, 0, 1),
        }
    }

    pub(super) fn retried(&self, count: usize) {
        self.retried.fetch_add(count as u64, Ordering::Relaxed);
    }
}
