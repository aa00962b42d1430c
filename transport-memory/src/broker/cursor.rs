//! Where a group stands on one topic, and which of its members has what.

use polybus_core::transport::Settlement;

use super::MemberId;
use super::log::{Log, Record};
use super::order::Order;
use super::slots::{Slot, Slots};

/// How many events one [`take`](Cursor::take) may set aside for other members before it lets go
/// of the broker: a bound on how long the lock is held when another member has the keys of a
/// long stretch of the log.
const MOST_SET_ASIDE: usize = 1024;

/// A group's state on one topic.
#[derive(Debug)]
pub(crate) struct Cursor {
    slots: Slots,
    order: Order,
    members: Vec<MemberId>,
}

/// What a [`take`](Cursor::take) did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Took {
    /// How many events were delivered.
    pub(crate) delivered: usize,
    /// There may be more for this member.
    pub(crate) more: bool,
}

/// The delivery no longer belongs to the member that settles it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stale;

impl Cursor {
    /// A group that starts at an offset.
    pub(crate) fn new(start: u64) -> Self {
        Self {
            slots: Slots::new(start),
            order: Order::default(),
            members: Vec::new(),
        }
    }

    /// The first offset that the group has not settled: what is before it may be trimmed.
    pub(crate) fn low(&self) -> u64 {
        self.slots.low()
    }

    /// The members that read the topic.
    pub(crate) fn members(&self) -> &[MemberId] {
        &self.members
    }

    /// How many events no member has.
    pub(crate) fn waiting(&self, log: &Log) -> u64 {
        log.end() - self.slots.next() + self.slots.queued()
    }

    /// How many events members have and have not settled.
    pub(crate) fn pending(&self) -> u64 {
        self.slots.held()
    }

    pub(crate) fn join(&mut self, member: MemberId) {
        self.members.push(member);
    }

    /// Takes a member out; what it held waits for the others. Whether there was any.
    pub(crate) fn leave(&mut self, log: &Log, member: MemberId) -> bool {
        self.members.retain(|other| *other != member);
        let held: Vec<_> = self.slots.held_by(member).collect();
        for &(offset, attempt) in &held {
            self.release(log, offset, attempt);
        }
        !held.is_empty()
    }

    /// Delivers up to `max` events to a member: first what is queued, then what is new. New
    /// events whose key another member holds are set aside. That member needs no signal for
    /// it: either it has not looked at the topic since they were appended, or it did and took
    /// them itself.
    pub(crate) fn take(
        &mut self,
        log: &Log,
        member: MemberId,
        max: usize,
        mut deliver: impl FnMut(u64, u32, &Record),
    ) -> Took {
        let mut took = Took::default();
        while took.delivered < max
            && let Some(offset) = self.order.first_for(member)
        {
            let record = log.record(offset);
            self.order.take(offset, record.key, member);
            let attempt = self.attempts(offset).saturating_add(1);
            self.slots.set(offset, Slot::Held { member, attempt });
            deliver(offset, attempt, record);
            took.delivered += 1;
        }
        let mut set_aside = 0;
        while took.delivered < max && set_aside < MOST_SET_ASIDE && self.slots.next() < log.end() {
            let offset = self.slots.next();
            let record = log.record(offset);
            if self.order.try_hold(record.key, member) {
                self.slots.push(Slot::Held { member, attempt: 1 });
                deliver(offset, 1, record);
                took.delivered += 1;
            } else {
                self.slots.push(Slot::Queued { attempts: 0 });
                self.order.queue(offset, record.key);
                set_aside += 1;
            }
        }
        took.more = took.delivered == max || set_aside == MOST_SET_ASIDE;
        took
    }

    /// Settles one delivery of a member. Whether events became available by that.
    pub(crate) fn settle(
        &mut self,
        log: &Log,
        member: MemberId,
        (offset, attempt): (u64, u32),
        settlement: Settlement,
    ) -> Result<bool, Stale> {
        let ack = settlement == Settlement::Ack;
        match self.slots.slot(offset) {
            Some(Slot::Held {
                member: holder,
                attempt: current,
            }) if (holder, current) == (member, attempt) => Ok(if ack {
                self.slots.set(offset, Slot::Settled { attempt });
                self.order.unhold(log.record(offset).key)
            } else {
                self.release(log, offset, attempt);
                true
            }),
            // Settled once more: a caller whose first call was dropped can't know.
            Some(Slot::Settled { attempt: settled }) if ack && settled == attempt => Ok(false),
            Some(Slot::Queued { attempts }) if !ack && attempts == attempt => Ok(false),
            None if ack && offset < self.slots.low() => Ok(false),
            _ => Err(Stale),
        }
    }

    /// Counts what is before an offset as settled, whatever became of it. Whether events of its
    /// keys became available by that.
    pub(crate) fn settle_before(&mut self, log: &Log, bound: u64) -> bool {
        let mut available = false;
        for offset in self.slots.low()..self.slots.next().min(bound) {
            let key = log.record(offset).key;
            let attempt = match self.slots.slot(offset) {
                Some(Slot::Held { attempt, .. }) => attempt,
                Some(Slot::Queued { attempts }) => {
                    self.order.dequeue(offset, key);
                    self.slots.set(offset, Slot::Settled { attempt: attempts });
                    continue;
                }
                Some(Slot::Settled { .. }) | None => continue,
            };
            self.slots.set(offset, Slot::Settled { attempt });
            available |= self.order.unhold(key);
        }
        self.slots.skip_to(bound);
        available
    }

    /// Whether a delivery is with a member and not settled.
    pub(crate) fn holds(&self, member: MemberId, offset: u64, attempt: u32) -> bool {
        self.slots.slot(offset) == Some(Slot::Held { member, attempt })
    }

    /// Whether a delivery was settled.
    pub(crate) fn is_settled(&self, offset: u64, attempt: u32) -> bool {
        match self.slots.slot(offset) {
            Some(Slot::Settled { attempt: settled }) => settled == attempt,
            slot => slot.is_none() && offset < self.slots.low(),
        }
    }

    fn release(&mut self, log: &Log, offset: u64, attempt: u32) {
        let key = log.record(offset).key;
        let attempts = attempt;
        self.slots.set(offset, Slot::Queued { attempts });
        self.order.queue(offset, key);
        self.order.unhold(key);
    }

    fn attempts(&self, offset: u64) -> u32 {
        match self.slots.slot(offset) {
            Some(Slot::Queued { attempts }) => attempts,
            slot => unreachable!("event {offset} is queued, so its slot is not {slot:?}"),
        }
    }
}

#[cfg(test)]
mod tests;
