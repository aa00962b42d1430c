//! How far a partition is done: deliveries are settled in any order, its position is committed
//! in one.

use std::collections::VecDeque;

/// The deliveries of one partition that are not behind its position yet.
///
/// A server that keeps one position per group and partition can't be told "5 and 7 are done, 6
/// is not": only the prefix in which everything is done may be committed. Offsets have gaps
/// (compaction, transaction markers), so the prefix goes by the offsets that were delivered,
/// never by counting.
///
/// Each ownership of the partition has an epoch. What was delivered in an earlier one belongs to
/// somebody else by now and is [`Stale`].
///
/// ```
/// use polybus_core::watermark::Watermark;
///
/// let mut watermark = Watermark::new();
/// let epoch = watermark.begin();
/// for offset in [5, 6, 9] {
///     watermark.push(offset);
/// }
/// watermark.ack(epoch, 6)?;
/// assert_eq!(watermark.position(), None);
/// watermark.ack(epoch, 5)?;
/// assert_eq!(watermark.position(), Some(7));
/// # Ok::<(), polybus_core::watermark::Stale>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Watermark {
    epoch: u32,
    /// In ascending order of their offsets; the first one is not done.
    entries: VecDeque<Entry>,
    last_pushed: Option<u64>,
    position: Option<u64>,
    outstanding: usize,
}

/// The delivery was made in an ownership of the partition that has ended, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale;

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Outstanding,
    Released,
    Done,
}

impl Watermark {
    /// A partition that is not owned.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins another ownership, or ends the present one: forgets what was delivered and returns
    /// the new epoch.
    pub fn begin(&mut self) -> u32 {
        *self = Self {
            epoch: self.epoch.wrapping_add(1),
            ..Self::default()
        };
        self.epoch
    }

    /// The present epoch.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Takes note of a delivery. Returns `false`, and ignores it, if it or a later one has been
    /// noted in this epoch: it was received twice.
    pub fn push(&mut self, offset: u64) -> bool {
        if self.last_pushed.is_some_and(|last| offset <= last) {
            return false;
        }
        self.last_pushed = Some(offset);
        self.outstanding += 1;
        self.entries.push_back(Entry {
            offset,
            state: State::Outstanding,
        });
        true
    }

    /// Marks a delivery as done. Doing so again changes nothing; a delivery that was released
    /// may still be marked as done while the partition is owned.
    ///
    /// # Errors
    ///
    /// [`Stale`] if it was not delivered in this epoch.
    pub fn ack(&mut self, epoch: u32, offset: u64) -> Result<(), Stale> {
        let Some(index) = self.find(epoch, offset)? else {
            return Ok(());
        };
        self.set(index, State::Done);
        while let Some(done) = self.entries.front().filter(|e| e.state == State::Done) {
            self.position = Some(done.offset + 1);
            self.entries.pop_front();
        }
        Ok(())
    }

    /// Marks a delivery as not done and not being worked on: the position stays before it until
    /// the end of the epoch. Has no effect on one that is done.
    ///
    /// # Errors
    ///
    /// [`Stale`] if it was not delivered in this epoch.
    pub fn release(&mut self, epoch: u32, offset: u64) -> Result<(), Stale> {
        if let Some(index) = self.find(epoch, offset)?
            && self.entries[index].state == State::Outstanding
        {
            self.set(index, State::Released);
        }
        Ok(())
    }

    /// The offset to go on from: everything delivered in this epoch below it is done. `None` if
    /// nothing is.
    pub fn position(&self) -> Option<u64> {
        self.position
    }

    /// How many deliveries are neither done nor released.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// How many deliveries wait for the position to pass them, done ones included.
    pub fn held(&self) -> usize {
        self.entries.len()
    }

    fn set(&mut self, index: usize, state: State) {
        let entry = &mut self.entries[index];
        if entry.state == State::Outstanding {
            self.outstanding -= 1;
        }
        entry.state = state;
    }

    /// `None` for one that the position has passed.
    fn find(&self, epoch: u32, offset: u64) -> Result<Option<usize>, Stale> {
        if epoch != self.epoch || self.last_pushed.is_none_or(|last| offset > last) {
            return Err(Stale);
        }
        let Some(first) = self.entries.front() else {
            return Ok(None);
        };
        let Some(distance) = offset.checked_sub(first.offset) else {
            return Ok(None);
        };
        // Offsets are mostly dense: then the distance is the index.
        let guess = usize::try_from(distance).unwrap_or(usize::MAX);
        if self.entries.get(guess).is_some_and(|e| e.offset == offset) {
            return Ok(Some(guess));
        }
        self.entries
            .binary_search_by_key(&offset, |entry| entry.offset)
            .map(Some)
            .map_err(|_| Stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(offsets: impl IntoIterator<Item = u64>) -> (Watermark, u32) {
        let mut watermark = Watermark::new();
        let epoch = watermark.begin();
        for offset in offsets {
            assert!(watermark.push(offset));
        }
        (watermark, epoch)
    }

    #[test]
    fn only_the_prefix_in_which_everything_is_done_counts() {
        let (mut watermark, epoch) = owned(10..15);
        for (offset, position) in [
            (12, None),
            (10, Some(11)),
            (14, Some(11)),
            (11, Some(13)),
            (13, Some(15)),
        ] {
            watermark.ack(epoch, offset).unwrap();
            assert_eq!(watermark.position(), position, "after {offset}");
        }
        assert_eq!((watermark.outstanding(), watermark.held()), (0, 0));
    }

    #[test]
    fn gaps_between_offsets_are_not_waited_for() {
        let (mut watermark, epoch) = owned([3, 7, 1000, 1001, 5000]);
        for offset in [5000, 1001, 7] {
            watermark.ack(epoch, offset).unwrap();
        }
        assert_eq!(watermark.position(), None);
        watermark.ack(epoch, 3).unwrap();
        assert_eq!(watermark.position(), Some(8));
        watermark.ack(epoch, 1000).unwrap();
        assert_eq!(watermark.position(), Some(5001));
    }

    #[test]
    fn an_offset_in_a_gap_was_never_delivered() {
        let (mut watermark, epoch) = owned([3, 7]);
        assert_eq!(watermark.ack(epoch, 5), Err(Stale));
        assert_eq!(watermark.ack(epoch, 8), Err(Stale));
    }

    #[test]
    fn a_late_ack_of_an_earlier_ownership_changes_nothing() {
        let (mut watermark, old) = owned(0..3);
        watermark.ack(old, 0).unwrap();
        let new = watermark.begin();
        assert!(watermark.push(0), "the new owner gets them again");
        assert!(watermark.push(1));
        assert_eq!(watermark.ack(old, 0), Err(Stale));
        assert_eq!(watermark.release(old, 1), Err(Stale));
        assert_eq!(watermark.position(), None);
        assert_eq!(watermark.outstanding(), 2);
        watermark.ack(new, 0).unwrap();
        assert_eq!(watermark.position(), Some(1));
    }

    #[test]
    fn nothing_is_owned_before_the_first_epoch() {
        let mut watermark = Watermark::new();
        assert_eq!(watermark.ack(watermark.epoch(), 0), Err(Stale));
    }

    #[test]
    fn what_was_received_twice_is_noted_once() {
        let (mut watermark, epoch) = owned([4, 5]);
        assert!(!watermark.push(5));
        assert!(!watermark.push(4));
        watermark.ack(epoch, 4).unwrap();
        watermark.ack(epoch, 5).unwrap();
        assert!(!watermark.push(5), "nor after it is done");
        assert_eq!((watermark.position(), watermark.held()), (Some(6), 0));
    }

    #[test]
    fn settling_again_is_harmless() {
        let (mut watermark, epoch) = owned([1, 2, 3]);
        for _ in 0..2 {
            watermark.ack(epoch, 1).unwrap();
            watermark.ack(epoch, 3).unwrap();
        }
        assert_eq!(
            (watermark.position(), watermark.outstanding()),
            (Some(2), 1)
        );
        watermark.release(epoch, 3).unwrap();
        watermark.release(epoch, 1).unwrap();
        watermark.ack(epoch, 2).unwrap();
        assert_eq!(watermark.position(), Some(4), "done stays done");
    }

    #[test]
    fn a_released_one_holds_the_position_and_is_not_outstanding() {
        let (mut watermark, epoch) = owned([1, 2, 3]);
        watermark.release(epoch, 1).unwrap();
        watermark.release(epoch, 1).unwrap();
        watermark.ack(epoch, 2).unwrap();
        watermark.ack(epoch, 3).unwrap();
        assert_eq!((watermark.position(), watermark.outstanding()), (None, 0));
        assert_eq!(watermark.held(), 3);
        watermark.ack(epoch, 1).unwrap();
        assert_eq!((watermark.position(), watermark.held()), (Some(4), 0));
    }

    /// Every order in which six deliveries can be settled ends at the same place, and the
    /// position never passes one that is not done.
    #[test]
    fn any_order_of_acks_is_safe() {
        let offsets = [2, 3, 5, 8, 13, 14];
        let mut orders = vec![vec![]];
        for _ in offsets {
            orders = orders
                .iter()
                .flat_map(|order: &Vec<u64>| {
                    let left = offsets.into_iter().filter(|o| !order.contains(o));
                    left.map(|offset| [order.as_slice(), &[offset]].concat())
                        .collect::<Vec<_>>()
                })
                .collect();
        }
        assert_eq!(orders.len(), 720);
        for order in orders {
            let (mut watermark, epoch) = owned(offsets);
            for (done, offset) in order.iter().enumerate() {
                watermark.ack(epoch, *offset).unwrap();
                let open = order[done + 1..].iter().min().copied();
                let position = watermark.position().unwrap_or(0);
                assert!(position <= open.unwrap_or(15), "{order:?} at {done}");
            }
            assert_eq!(watermark.position(), Some(15), "{order:?}");
        }
    }
}
