//! The broker: its state is plain and synchronous, one lock is around it, and every call takes
//! the lock once.

mod cursor;
mod log;
mod member;
mod noted;
mod order;
mod slots;
mod state;
mod together;
mod topic;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use polybus_core::Timestamp;
use polybus_core::idempotency::MemoryIdempotency;
use polybus_core::transport::Outgoing;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Duration, Instant, timeout_at};

use crate::MemoryConfig;
use log::Limits;
pub(crate) use log::Measure;
pub(crate) use state::{Progress, State, Taken};
pub(crate) use together::{Step, Together};

/// A member of a group, unique for as long as the broker lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MemberId(pub(crate) u32);

/// Members to be woken once the lock is released.
#[derive(Debug, Default)]
#[must_use = "a member that is not woken waits for ever"]
pub(crate) struct Wakes(Vec<Arc<Notify>>);

impl Wakes {
    fn push(&mut self, wake: &Arc<Notify>) {
        self.0.push(Arc::clone(wake));
    }

    fn wake(self) {
        self.0.iter().for_each(|wake| wake.notify_one());
    }
}

/// The state, and what waits for it to change.
#[derive(Debug)]
pub(crate) struct Broker {
    state: Mutex<State>,
    max_bytes: u64,
    delivery_deadline: Duration,
    /// Publishers that wait for room.
    waiting: AtomicUsize,
    room: Notify,
    /// Made when it is first asked for: few need it.
    idempotency: OnceLock<Arc<MemoryIdempotency>>,
}

impl Broker {
    pub(crate) fn new(config: &MemoryConfig) -> Self {
        let limits = Limits {
            events: config.max_events,
            bytes: config.max_bytes,
            settled: config.keep_settled,
        };
        Self {
            state: Mutex::new(State::new(limits)),
            max_bytes: limits.bytes,
            delivery_deadline: config.delivery_deadline,
            waiting: AtomicUsize::new(0),
            room: Notify::new(),
            idempotency: OnceLock::new(),
        }
    }

    /// Which events were handled.
    pub(crate) fn idempotency(&self) -> Arc<MemoryIdempotency> {
        Arc::clone(self.idempotency.get_or_init(Arc::default))
    }

    /// The state, for a call that makes nothing available to anybody.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics but for a bug, and that panic shows by itself; passing
        // it on here would abort the process where a `Drop` takes the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then wakes the members that may go on.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State, &mut Wakes) -> T) -> T {
        let mut wakes = Wakes::default();
        let result = change(&mut self.lock(), &mut wakes);
        wakes.wake();
        result
    }

    /// Wakes the publishers that wait for room. Called after every change that may make some.
    ///
    /// A publisher counts itself as waiting before it looks for room under the lock: either it
    /// sees what was changed, or it is seen here.
    pub(crate) fn room_may_be_made(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.room.notify_waiters();
        }
    }

    /// Stores what there is room for. Whether that was everything.
    pub(crate) fn append(&self, batch: &[Outgoing], progress: &mut [Progress]) -> bool {
        let now = Timestamp::now();
        // What is trimmed is freed after the lock is released.
        let mut trimmed = Vec::new();
        self.change(|state, wakes| state.append(batch, progress, now, &mut trimmed, wakes))
    }

    /// Stores the rest of a batch as room is made, until the delivery deadline.
    pub(crate) async fn append_as_room_is_made(
        &self,
        batch: &[Outgoing],
        progress: &mut [Progress],
    ) {
        let deadline = Instant::now() + self.delivery_deadline;
        let _waiting = Waiting::new(self);
        loop {
            // Made before looking: it hears of every change from here on.
            let room = self.room.notified();
            if self.append(batch, progress) || timeout_at(deadline, room).await.is_err() {
                return;
            }
        }
    }

    /// Told when room may have been made, to those who [wait](Waiting).
    pub(crate) fn room(&self) -> Notified<'_> {
        self.room.notified()
    }

    /// How many bytes a topic holds.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// How long a publisher waits for room.
    pub(crate) fn delivery_deadline(&self) -> Duration {
        self.delivery_deadline
    }
}

/// Counts a publisher as waiting for as long as it lives, also when its call is dropped.
pub(crate) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    pub(crate) fn new(broker: &'a Broker) -> Self {
        broker.waiting.fetch_add(1, Ordering::SeqCst);
        Self(&broker.waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
