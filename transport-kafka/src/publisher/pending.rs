//! What has been published and not been answered.
//!
//! One entry, one countdown and one wake-up for a whole batch. The client carries a number with
//! each record and gives it back with the answer: the batch's place in the table, and the
//! record's in the batch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use polybus_core::transport::Outcome;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

/// The number that travels with a record must hold both places.
const _: () = assert!(usize::BITS >= 64, "the Kafka transport needs 64 bit");

/// All batches that are not answered in full.
#[derive(Debug, Default)]
pub(super) struct Pending {
    table: Mutex<Table>,
    /// Told when a record was answered, if somebody waits for room in the client's queue.
    room: Notify,
    room_wanted: AtomicBool,
    /// Told when a batch was answered in full.
    answered: Notify,
}

#[derive(Debug, Default)]
struct Table {
    batches: Vec<Option<Batch>>,
    free: Vec<u32>,
    opened: u64,
}

#[derive(Debug)]
struct Batch {
    /// The batches before it were opened earlier.
    number: u64,
    open: usize,
    /// Given up when the caller has stopped waiting; then answers are only counted.
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    outcomes: Vec<Option<Outcome>>,
    done: oneshot::Sender<Vec<Option<Outcome>>>,
}

/// One batch, as its publisher holds it. Dropping it gives up waiting; what was sent stays in
/// the table until it is answered.
#[derive(Debug)]
pub(super) struct Ticket {
    pending: Arc<Pending>,
    place: u32,
    size: usize,
    /// How many records have got an answer or are on their way to one.
    passed_on: usize,
    done: oneshot::Receiver<Vec<Option<Outcome>>>,
}

impl Pending {
    pub(super) fn open(self: &Arc<Self>, size: usize) -> Ticket {
        let (sender, done) = oneshot::channel();
        let mut table = self.lock();
        let number = table.opened;
        table.opened += 1;
        let batch = Some(Batch {
            number,
            open: size,
            waiting: Some(Waiting {
                outcomes: (0..size).map(|_| None).collect(),
                done: sender,
            }),
        });
        let place = match table.free.pop() {
            Some(place) => {
                table.batches[place as usize] = batch;
                place
            }
            None => {
                table.batches.push(batch);
                u32::try_from(table.batches.len() - 1).expect("fewer than 2^32 batches are open")
            }
        };
        Ticket {
            pending: Arc::clone(self),
            place,
            size,
            passed_on: 0,
            done,
        }
    }

    /// Takes the answer for a record, by the number that travelled with it.
    pub(super) fn answer(&self, number: usize, outcome: Outcome) {
        let (place, index) = (number >> 32, number & u32::MAX as usize);
        self.settle(place, 1, Some((index, outcome)));
        // Looked at first: to write it for each answer would take it from those who set it.
        if self.room_wanted.load(Ordering::Acquire)
            && self.room_wanted.swap(false, Ordering::AcqRel)
        {
            self.room.notify_one();
        }
    }

    /// Waits until another record was answered. May return early.
    pub(super) async fn room(&self) {
        self.room_wanted.store(true, Ordering::Release);
        self.room.notified().await;
    }

    /// Waits until everything opened before is answered. Returns how many events are not, if
    /// the deadline passes first.
    pub(super) async fn flush(&self, deadline: Instant) -> Result<(), usize> {
        let before = self.lock().opened;
        loop {
            let answered = self.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            let left = self.open_before(before);
            if left == 0 {
                return Ok(());
            }
            if timeout_at(deadline, answered).await.is_err() {
                return match self.open_before(before) {
                    0 => Ok(()),
                    left => Err(left),
                };
            }
        }
    }

    fn open_before(&self, number: u64) -> usize {
        let table = self.lock();
        let batches = table.batches.iter().flatten();
        batches
            .filter(|batch| batch.number < number)
            .map(|batch| batch.open)
            .sum()
    }

    fn settle(&self, place: usize, count: usize, outcome: Option<(usize, Outcome)>) {
        let mut table = self.lock();
        let Some(batch) = table.batches.get_mut(place).and_then(Option::as_mut) else {
            debug_assert!(false, "a record is answered once");
            return;
        };
        batch.open -= count;
        if let (Some(waiting), Some((index, outcome))) = (&mut batch.waiting, outcome) {
            waiting.outcomes[index] = Some(outcome);
        }
        if batch.open > 0 {
            return;
        }
        let batch = table.batches[place].take();
        table
            .free
            .push(u32::try_from(place).expect("places are of 32 bit"));
        drop(table);
        if let Some(Waiting { outcomes, done }) = batch.and_then(|batch| batch.waiting) {
            // The caller may have stopped waiting in this moment.
            let _ = done.send(outcomes);
        }
        self.answered.notify_waiters();
    }

    /// Stops keeping the outcomes of a batch, and returns those that are there.
    fn give_up(&self, place: u32) -> Option<Vec<Option<Outcome>>> {
        let mut table = self.lock();
        let batch = table.batches.get_mut(place as usize)?.as_mut()?;
        Some(batch.waiting.take()?.outcomes)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table
            .lock()
            .expect("nothing panics while it holds the table")
    }
}

impl Ticket {
    /// The number that the next record travels with.
    pub(super) fn next(&self) -> usize {
        ((self.place as usize) << 32) | self.passed_on
    }

    /// The client has the next record: it will be answered.
    pub(super) fn sent(&mut self) {
        self.passed_on += 1;
    }

    /// The next record has its outcome already.
    pub(super) fn settle(&mut self, outcome: Outcome) {
        let index = self.passed_on;
        self.passed_on += 1;
        self.pending
            .settle(self.place as usize, 1, Some((index, outcome)));
    }

    /// How many records have been passed on.
    pub(super) fn passed_on(&self) -> usize {
        self.passed_on
    }

    /// Waits for the answers. What has none at the deadline gets the outcome of `late`, by its
    /// index.
    pub(super) async fn outcomes(
        mut self,
        deadline: Instant,
        late: impl Fn(usize) -> Outcome,
    ) -> Vec<Outcome> {
        let outcomes = match timeout_at(deadline, &mut self.done).await {
            Ok(Ok(outcomes)) => outcomes,
            _ => match self.pending.give_up(self.place) {
                Some(outcomes) => outcomes,
                // Answered between the deadline and giving up.
                None => self.done.try_recv().unwrap_or_default(),
            },
        };
        let mut outcomes = outcomes;
        outcomes.resize_with(self.size, || None);
        outcomes
            .into_iter()
            .enumerate()
            .map(|(index, outcome)| outcome.unwrap_or_else(|| late(index)))
            .collect()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let unsent = self.size - self.passed_on;
        if unsent > 0 {
            self.pending.settle(self.place as usize, unsent, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use polybus_core::transport::Position;
    use polybus_core::{Error, ErrorKind};

    use super::*;

    fn accepted(offset: u64) -> Outcome {
        Outcome::Accepted(Position::new(0, offset))
    }

    fn late(_: usize) -> Outcome {
        Outcome::Unknown(Error::new(ErrorKind::Timeout, "late"))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn send(ticket: &mut Ticket, count: usize) -> Vec<usize> {
        let numbers = (0..count).map(|_| {
            let number = ticket.next();
            ticket.sent();
            number
        });
        numbers.collect()
    }

    fn offsets(outcomes: Vec<Outcome>) -> Vec<Option<u64>> {
        outcomes
            .into_iter()
            .map(|outcome| Some(outcome.into_result().ok()?.offset()))
            .collect()
    }

    #[tokio::test]
    async fn answers_in_any_order_come_back_in_the_order_of_the_batch() {
        let pending = Arc::new(Pending::default());
        let (mut first, mut second) = (pending.open(3), pending.open(2));
        let first_numbers = send(&mut first, 3);
        let second_numbers = send(&mut second, 2);
        for (number, offset) in [
            (second_numbers[1], 11),
            (first_numbers[2], 2),
            (first_numbers[0], 0),
            (second_numbers[0], 10),
            (first_numbers[1], 1),
        ] {
            pending.answer(number, accepted(offset));
        }
        let second = offsets(second.outcomes(soon(), late).await);
        assert_eq!(second, [Some(10), Some(11)]);
        let first = offsets(first.outcomes(soon(), late).await);
        assert_eq!(first, [Some(0), Some(1), Some(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_late_is_unknown_and_still_counted_by_flush() {
        let pending = Arc::new(Pending::default());
        let mut ticket = pending.open(2);
        let numbers = send(&mut ticket, 2);
        pending.answer(numbers[0], accepted(5));
        let outcomes = ticket.outcomes(soon(), late).await;
        assert_eq!(offsets(outcomes), [Some(5), None]);
        assert_eq!(pending.flush(soon()).await, Err(1));
        pending.answer(numbers[1], accepted(6));
        assert_eq!(pending.flush(soon()).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_publish_leaves_only_what_was_sent() {
        let pending = Arc::new(Pending::default());
        let mut ticket = pending.open(5);
        let numbers = send(&mut ticket, 2);
        drop(ticket);
        assert_eq!(pending.flush(soon()).await, Err(2));
        for number in numbers {
            pending.answer(number, accepted(0));
        }
        assert_eq!(pending.flush(soon()).await, Ok(()));
        drop(pending.open(3));
        assert_eq!(pending.flush(soon()).await, Ok(()));
    }

    #[tokio::test]
    async fn flush_waits_for_earlier_batches_alone() {
        let pending = Arc::new(Pending::default());
        let mut first = pending.open(1);
        let numbers = send(&mut first, 1);
        let waiting = Arc::clone(&pending);
        let flush = tokio::spawn(async move { waiting.flush(soon()).await });
        tokio::task::yield_now().await;
        let _later = pending.open(1);
        pending.answer(numbers[0], accepted(0));
        assert_eq!(flush.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn places_are_used_again() {
        let pending = Arc::new(Pending::default());
        for offset in 0..1000 {
            let mut ticket = pending.open(1);
            let numbers = send(&mut ticket, 1);
            pending.answer(numbers[0], accepted(offset));
            assert_eq!(offsets(ticket.outcomes(soon(), late).await), [Some(offset)]);
        }
        assert_eq!(pending.lock().batches.len(), 1);
    }
}
