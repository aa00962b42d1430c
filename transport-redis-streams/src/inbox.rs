//! Deliveries that wait for the application.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use polybus_core::transport::{AckToken, Delivery};
use polybus_core::{Error, Result};
use tokio::sync::Notify;

/// A queue of batches from the tasks that read to the one caller of `recv`. Bounded by its
/// writers, which wait for [room](Self::room) before they ask the server for more.
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Wakes the reader: something is there.
    filled: Notify,
    /// Wakes the writers: there may be room.
    emptied: Notify,
    max_entries: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct State {
    batches: VecDeque<Batch>,
    entries: usize,
    bytes: usize,
    /// What the next `recv` that finds no delivery says.
    error: Option<Error>,
    /// The error ended the subscriber.
    ended: bool,
}

struct Batch {
    deliveries: VecDeque<Delivery>,
    /// About how many bytes each delivery of it takes.
    size: usize,
}

impl Inbox {
    pub(crate) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
            max_entries,
            max_bytes,
        }
    }

    /// Waits until fewer deliveries wait than may.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn room(&self) {
        loop {
            let mut emptied = pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.has_room(0) {
                return;
            }
            emptied.await;
        }
    }

    /// Whether fewer deliveries wait than may, were these `more` among them.
    pub(crate) fn has_room(&self, more: usize) -> bool {
        let state = self.lock();
        state.entries + more < self.max_entries && state.bytes < self.max_bytes
    }

    /// Adds deliveries that take so many bytes together.
    pub(crate) fn push(&self, deliveries: Vec<Delivery>, bytes: usize) {
        let count = deliveries.len();
        if count == 0 {
            return;
        }
        let size = bytes / count;
        {
            let mut state = self.lock();
            state.entries += count;
            state.bytes += size * count;
            state.batches.push_back(Batch {
                deliveries: deliveries.into(),
                size,
            });
        }
        self.filled.notify_one();
    }

    /// Takes the deliveries of one source back, in their order.
    pub(crate) fn remove(&self, source: u32) -> Vec<AckToken> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut removed = Vec::new();
        for batch in &mut state.batches {
            let before = removed.len();
            batch.deliveries.retain(|delivery| {
                let token = delivery.token();
                let stays = token.source != source;
                if !stays {
                    removed.push(token);
                }
                stays
            });
            state.bytes -= (removed.len() - before) * batch.size;
        }
        state.batches.retain(|batch| !batch.deliveries.is_empty());
        state.entries -= removed.len();
        drop(guard);
        self.emptied.notify_waiters();
        removed
    }

    /// Tells the reader of a failure that passes by itself. A newer one replaces it.
    pub(crate) fn report(&self, error: Error) {
        let mut state = self.lock();
        if !state.ended {
            state.error = Some(error);
            drop(state);
            self.filled.notify_one();
        }
    }

    /// A failure that passed before anybody asked is not worth telling.
    pub(crate) fn recovered(&self) {
        let mut state = self.lock();
        if !state.ended {
            state.error = None;
        }
    }

    /// Ends the subscriber with an error, after what is there was delivered.
    pub(crate) fn end(&self, error: Error) {
        let mut state = self.lock();
        state.error = Some(error);
        state.ended = true;
        drop(state);
        self.filled.notify_one();
    }

    /// Up to `max` deliveries, or the error. `closed` makes the error of one that has ended and
    /// said why.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what is taken is returned without a further wait.
    pub(crate) async fn recv(
        &self,
        max: usize,
        closed: impl Fn() -> Error,
    ) -> Result<Vec<Delivery>> {
        loop {
            {
                let mut state = self.lock();
                let taken = state.take(max.max(1));
                if !taken.is_empty() {
                    drop(state);
                    self.emptied.notify_waiters();
                    return Ok(taken);
                }
                if let Some(error) = state.error.take() {
                    return Err(error);
                }
                if state.ended {
                    return Err(closed());
                }
            }
            self.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, max: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        while let Some(batch) = self.batches.front_mut() {
            let count = batch.deliveries.len().min(max - taken.len());
            self.entries -= count;
            self.bytes -= count * batch.size;
            if count < batch.deliveries.len() {
                taken.extend(batch.deliveries.drain(..count));
                break;
            }
            let Some(batch) = self.batches.pop_front() else {
                break;
            };
            if taken.is_empty() {
                // The usual case: the whole batch as it is, without moving one delivery.
                taken = batch.deliveries.into();
            } else {
                taken.extend(batch.deliveries);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use polybus_core::transport::Position;
    use polybus_core::{ErrorKind, Event, Topic};
    use tokio_test_free::poll_once;

    use super::*;

    /// What the tests need of polling, without a crate for it.
    mod tokio_test_free {
        use std::pin::Pin;
        use std::task::{Context, Poll, Waker};

        pub(super) fn poll_once<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
            match future.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            }
        }
    }

    fn deliveries(numbers: std::ops::Range<u64>) -> Vec<Delivery> {
        let event = Event::builder("t").source("s").build().unwrap();
        let one = |number| {
            let token = AckToken::new(0, 0, [number, 0]);
            let position = Position::with_sequence(0, number, 0);
            Delivery::new(token, Topic::new("a"), position, event.clone())
        };
        numbers.map(one).collect()
    }

    fn closed() -> Error {
        Error::new(ErrorKind::Closed, "closed")
    }

    async fn recv(inbox: &Inbox, max: usize) -> Vec<u64> {
        let batch = inbox.recv(max, closed).await.unwrap();
        batch
            .iter()
            .map(|delivery| delivery.position().offset())
            .collect()
    }

    #[tokio::test]
    async fn batches_are_cut_and_joined_to_what_is_asked_for() {
        let inbox = Inbox::new(100, 100);
        inbox.push(deliveries(0..5), 10);
        inbox.push(Vec::new(), 10);
        inbox.push(deliveries(5..7), 4);
        assert_eq!(recv(&inbox, 2).await, [0, 1]);
        assert_eq!(recv(&inbox, 4).await, [2, 3, 4, 5]);
        inbox.push(deliveries(7..8), 4);
        assert_eq!(recv(&inbox, 100).await, [6, 7]);
        assert!(poll_once(pin!(inbox.recv(1, closed))).is_none());
    }

    #[tokio::test]
    async fn writers_wait_at_either_bound() {
        for (count, bytes) in [(3, 0), (1, 10)] {
            let inbox = Inbox::new(3, 10);
            assert!(poll_once(pin!(inbox.room())).is_some());
            inbox.push(deliveries(0..count), bytes);
            let mut room = pin!(inbox.room());
            assert!(poll_once(room.as_mut()).is_none());
            recv(&inbox, 1).await;
            assert!(poll_once(room).is_some());
        }
    }

    #[tokio::test]
    async fn what_is_taken_back_makes_room_and_leaves_the_others() {
        let inbox = Inbox::new(4, 100);
        let of = |source, number| {
            let delivery = deliveries(number..number + 1).remove(0);
            let event = delivery.event().unwrap().clone();
            let token = AckToken::new(source, 0, [number, 0]);
            Delivery::new(token, Topic::new("a"), delivery.position(), event)
        };
        inbox.push(vec![of(1, 1), of(2, 2), of(1, 3)], 30);
        inbox.push(vec![of(1, 4)], 10);
        let mut room = pin!(inbox.room());
        assert!(poll_once(room.as_mut()).is_none());
        let removed = inbox.remove(1);
        let ids: Vec<_> = removed.iter().map(|token| token.id[0]).collect();
        assert_eq!(ids, [1, 3, 4]);
        assert!(poll_once(room).is_some());
        assert_eq!(recv(&inbox, 10).await, [2]);
        assert!(inbox.has_room(3) && poll_once(pin!(inbox.recv(1, closed))).is_none());
    }

    #[tokio::test]
    async fn a_dropped_recv_loses_nothing() {
        let inbox = Inbox::new(10, 10);
        {
            let mut dropped = pin!(inbox.recv(1, closed));
            assert!(poll_once(dropped.as_mut()).is_none());
            inbox.push(deliveries(0..1), 0);
        }
        assert_eq!(recv(&inbox, 1).await, [0]);
    }

    #[tokio::test]
    async fn errors_come_after_what_was_there_and_the_last_one_stays() {
        let inbox = Inbox::new(10, 10);
        let error = |kind| Error::new(kind, "failed");
        inbox.report(error(ErrorKind::Connect));
        inbox.push(deliveries(0..1), 0);
        assert_eq!(recv(&inbox, 1).await, [0]);
        let kind = |result: Result<Vec<Delivery>>| result.unwrap_err().kind();
        assert_eq!(kind(inbox.recv(1, closed).await), ErrorKind::Connect);

        inbox.report(error(ErrorKind::Connect));
        inbox.recovered();
        assert!(poll_once(pin!(inbox.recv(1, closed))).is_none());

        inbox.end(error(ErrorKind::Unauthorized));
        inbox.report(error(ErrorKind::Connect));
        inbox.recovered();
        assert_eq!(kind(inbox.recv(1, closed).await), ErrorKind::Unauthorized);
        assert_eq!(kind(inbox.recv(1, closed).await), ErrorKind::Closed);
    }
}
