//! What became of each event that a group has come across: a window over the log from the first
//! event that is not settled to the group's position.

use std::collections::VecDeque;

use super::MemberId;

/// The state of one event within its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// To be delivered (again), after so many deliveries.
    Queued { attempts: u32 },
    /// With a member, for this delivery.
    Held { member: MemberId, attempt: u32 },
    /// Settled, as of this delivery.
    Settled { attempt: u32 },
}

/// The window of slots.
#[derive(Debug)]
pub(crate) struct Slots {
    low: u64,
    slots: VecDeque<Slot>,
    held: u64,
    queued: u64,
}

impl Slots {
    /// A group that starts at an offset.
    pub(crate) fn new(start: u64) -> Self {
        Self {
            low: start,
            slots: VecDeque::new(),
            held: 0,
            queued: 0,
        }
    }

    /// The first offset that is not settled.
    pub(crate) fn low(&self) -> u64 {
        self.low
    }

    /// The group's position: the first offset it has not come across.
    pub(crate) fn next(&self) -> u64 {
        self.low + self.slots.len() as u64
    }

    /// How many events members hold.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// How many events wait in the window.
    pub(crate) fn queued(&self) -> u64 {
        self.queued
    }

    /// The slot of an offset; `None` outside of the window.
    pub(crate) fn slot(&self, offset: u64) -> Option<Slot> {
        let index = offset.checked_sub(self.low)?;
        self.slots.get(index as usize).copied()
    }

    /// Moves the position on by one event.
    pub(crate) fn push(&mut self, slot: Slot) {
        self.count(slot, 1);
        self.slots.push_back(slot);
    }

    /// Moves the window on to an offset, if nothing is in it.
    pub(crate) fn skip_to(&mut self, offset: u64) {
        if self.slots.is_empty() {
            self.low = self.low.max(offset);
        }
    }

    /// Changes a slot within the window and moves the window on past what is settled.
    pub(crate) fn set(&mut self, offset: u64, slot: Slot) {
        let index = (offset - self.low) as usize;
        let old = std::mem::replace(&mut self.slots[index], slot);
        self.count(old, -1);
        self.count(slot, 1);
        while let Some(Slot::Settled { .. }) = self.slots.front() {
            self.slots.pop_front();
            self.low += 1;
        }
    }

    /// What a member holds, in order, with the number of the delivery.
    pub(crate) fn held_by(&self, member: MemberId) -> impl Iterator<Item = (u64, u32)> {
        let slots = (self.low..).zip(&self.slots);
        slots.filter_map(move |(offset, slot)| match slot {
            Slot::Held { member: m, attempt } if *m == member => Some((offset, *attempt)),
            _ => None,
        })
    }

    fn count(&mut self, slot: Slot, change: i64) {
        let counter = match slot {
            Slot::Queued { .. } => &mut self.queued,
            Slot::Held { .. } => &mut self.held,
            Slot::Settled { .. } => return,
        };
        *counter = counter.wrapping_add_signed(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: MemberId = MemberId(7);
    const SETTLED: Slot = Slot::Settled { attempt: 1 };

    fn held(member: MemberId) -> Slot {
        Slot::Held { member, attempt: 1 }
    }

    #[test]
    fn the_window_moves_past_the_settled_prefix_only() {
        let mut slots = Slots::new(10);
        (0..4).for_each(|_| slots.push(held(MEMBER)));
        slots.set(11, SETTLED);
        slots.set(13, SETTLED);
        assert_eq!((slots.low(), slots.next()), (10, 14));
        slots.set(10, SETTLED);
        assert_eq!((slots.low(), slots.next()), (12, 14));
        slots.set(12, SETTLED);
        assert_eq!((slots.low(), slots.next()), (14, 14));
        assert_eq!(slots.slot(13), None);
        assert_eq!(slots.slot(14), None);
    }

    #[test]
    fn held_and_queued_are_counted_through_every_change() {
        let mut slots = Slots::new(0);
        slots.push(held(MEMBER));
        slots.push(Slot::Queued { attempts: 0 });
        slots.push(held(MemberId(8)));
        assert_eq!((slots.held(), slots.queued()), (2, 1));
        slots.set(0, Slot::Queued { attempts: 1 });
        slots.set(1, held(MEMBER));
        assert_eq!((slots.held(), slots.queued()), (2, 1));
        assert_eq!(slots.held_by(MEMBER).collect::<Vec<_>>(), [(1, 1)]);
        slots.set(0, SETTLED);
        slots.set(1, SETTLED);
        slots.set(2, SETTLED);
        assert_eq!((slots.held(), slots.queued()), (0, 0));
    }
}
