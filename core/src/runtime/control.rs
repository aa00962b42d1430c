use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::partitions::{PartitionStatus, Partitions};
use super::recess::Recesses;
use super::window::Window;
use crate::transport::Delivery;
use crate::{Result, Text, Timestamp};

/// Pauses a subscription while it runs, and says how it is doing.
pub struct Control {
    paused: watch::Sender<bool>,
    /// Told of every pause and every end of one.
    changed: Notify,
    failed: AtomicBool,
    restarting: AtomicBool,
    pub(super) recesses: Recesses,
    /// It is paused, reads nothing and has nothing in flight.
    idle: AtomicBool,
    became_idle: Notify,
    partitions: Mutex<Partitions>,
    in_flight: AtomicUsize,
    in_flight_bytes: AtomicUsize,
    oldest: Mutex<Option<Instant>>,
    last_error: Mutex<Option<LastError>>,
}

/// What went wrong last in a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastError {
    /// What.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

impl Control {
    /// Of a subscription that reads.
    pub fn new() -> Self {
        Self {
            paused: watch::Sender::new(false),
            changed: Notify::new(),
            failed: AtomicBool::new(false),
            restarting: AtomicBool::new(false),
            recesses: Recesses::default(),
            idle: AtomicBool::new(false),
            became_idle: Notify::new(),
            partitions: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            in_flight_bytes: AtomicUsize::new(0),
            oldest: Mutex::default(),
            last_error: Mutex::default(),
        }
    }

    /// Lets it read no more, until [`resume`](Self::resume). What it has received is handled.
    pub fn pause(&self) {
        self.set_paused(true);
    }

    /// Lets it read again.
    pub fn resume(&self) {
        self.set_paused(false);
    }

    fn set_paused(&self, paused: bool) {
        self.idle.store(false, Ordering::Release);
        self.paused.send_replace(paused);
        self.changed.notify_waiters();
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    /// Waits until a pause has come to rest: nothing is read, and everything that was received is
    /// settled. Forever if the subscription ends before. Cancel safe.
    pub async fn idle(&self) {
        loop {
            let mut notified = std::pin::pin!(self.became_idle.notified());
            notified.as_mut().enable();
            if self.idle.load(Ordering::Acquire) {
                return;
            }
            notified.await;
        }
    }

    /// Whether it failed, and is about to start again.
    pub fn is_restarting(&self) -> bool {
        self.restarting.load(Ordering::Acquire)
    }

    /// Lets it leave its groups, does some work, and lets it join them again. It gives its handlers
    /// that run `within` to finish; what they have not finished it gives back. Several that ask
    /// have their turns.
    ///
    /// # Errors
    ///
    /// That of the work: it has joined again all the same. Or why it could not join, or failed
    /// before; [`Closed`](crate::ErrorKind::Closed) if it stopped before. Forever if it has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropped, this takes place or not.
    pub async fn recess(
        &self,
        within: Duration,
        work: BoxFuture<'static, Result<()>>,
    ) -> Result<()> {
        self.recesses.ask(within, work).await
    }

    /// Whether it has a [recess](Self::recess).
    pub fn is_in_recess(&self) -> bool {
        self.recesses.is_taken()
    }

    /// What it has received from.
    pub fn partitions(&self) -> Vec<PartitionStatus> {
        lock(&self.partitions).all()
    }

    /// Whether it failed, so that it stops or has stopped by itself.
    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// How many events it has received and not settled.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// How many bytes the events have that it has received and is not done with.
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes.load(Ordering::Relaxed)
    }

    /// When the oldest event was received that is not done.
    pub fn oldest(&self) -> Option<Instant> {
        *lock(&self.oldest)
    }

    /// What went wrong last: in reading, handling, settling, or putting away.
    pub fn last_error(&self) -> Option<LastError> {
        lock(&self.last_error).clone()
    }

    /// Waits for a pause. Cancel safe.
    pub(super) async fn paused(&self) {
        // The sender lives as long as this call, so it can't be gone.
        let _ = self.paused.subscribe().wait_for(|paused| *paused).await;
    }

    /// Waits for a pause or the end of one that is made after this call, not after its first poll.
    /// Cancel safe.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    pub(super) fn note_error(&self, error: &dyn fmt::Display) {
        *lock(&self.last_error) = Some(LastError {
            message: error.to_string(),
            at: Timestamp::now(),
        });
    }

    pub(super) fn restarting(&self, restarting: bool) {
        self.restarting.store(restarting, Ordering::Release);
        if !restarting {
            self.failed.store(false, Ordering::Release);
        }
    }

    pub(super) fn note_received(&self, transport: &Text, deliveries: &[Delivery]) {
        lock(&self.partitions).received(transport, deliveries);
    }

    /// Notes whether a paused subscription does nothing any more.
    pub(super) fn note_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Release);
        if idle {
            self.became_idle.notify_waiters();
        }
    }

    pub(super) fn note_progress(&self, window: &Window) {
        self.in_flight.store(window.events(), Ordering::Relaxed);
        self.in_flight_bytes
            .store(window.bytes(), Ordering::Relaxed);
        *lock(&self.oldest) = window.oldest();
    }
}

/// Nothing in here can be left half changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("paused", &self.is_paused())
            .field("failed", &self.is_failed())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// When deliveries came that are not done: those that came together share an entry.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    open: VecDeque<(Instant, usize)>,
    /// The number of the first entry.
    first: u64,
}

impl Arrivals {
    /// Notes that deliveries came, and gives the number under which they are done.
    pub(super) fn arrived(&mut self, count: usize) -> u64 {
        self.open.push_back((Instant::now(), count));
        self.first + self.open.len() as u64 - 1
    }

    /// Notes that so many of them are done.
    pub(super) fn done(&mut self, number: u64, count: usize) {
        let index = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        if let Some((_, left)) = self.open.get_mut(index) {
            *left -= count;
        }
        while self.open.front().is_some_and(|(_, left)| *left == 0) {
            self.open.pop_front();
            self.first += 1;
        }
    }

    /// When the oldest came that is not done.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.open.front().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_that_of_the_first_that_is_not_done() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.oldest(), None);
        let first = arrivals.arrived(2);
        let second = arrivals.arrived(1);
        let third = arrivals.arrived(1);
        let oldest = arrivals.oldest().unwrap();
        arrivals.done(second, 1);
        arrivals.done(first, 1);
        assert_eq!(arrivals.oldest(), Some(oldest));
        arrivals.done(first, 1);
        assert_eq!(arrivals.open.len(), 1, "the second went with the first");
        arrivals.done(third, 1);
        assert_eq!(arrivals.oldest(), None);
        let fourth = arrivals.arrived(1);
        assert!(arrivals.oldest().is_some());
        arrivals.done(fourth, 1);
        assert_eq!(arrivals.oldest(), None);
    }
}
