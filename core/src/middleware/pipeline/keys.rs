//! Which keys are taken: what order per key goes by.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use crate::transport::{Content, Outgoing};

/// The hash of an event without a key, and its slot, which waits for nobody.
pub(super) const NO_KEY: u32 = u32::MAX;

/// Instead of a slot: no event of the key is anywhere.
pub(super) const FREE: u32 = u32::MAX - 1;

/// No batch has the slot's events: they are queued.
pub(super) const QUEUED: u32 = 0;

/// No batch has the slot's events: they stand in a set that is kept together, to be sent next or
/// after a pause.
pub(super) const SET: u32 = u32::MAX;

/// What is known of the events of one key. Two keys with the same hash share it: they wait for each
/// other, which costs time and never order.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slot {
    hash: u32,
    /// How many are queued, in a set or in a batch. Those of a lane are not counted.
    pub(super) entries: u32,
    /// The batch that they are in, [`SET`] or [`QUEUED`].
    pub(super) batch: u32,
    /// The group they belong to.
    pub(super) group: u32,
    /// Whether others wait in a lane.
    pub(super) parked: bool,
}

/// The slots of one transport: of the keys of which events are somewhere, no others. So few stay
/// close to the processor, however many keys there are in the long run.
#[derive(Debug, Default)]
pub(super) struct Keys {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    by_hash: HashMap<u32, u32, FixedState>,
}

impl Keys {
    pub(super) fn slot(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }

    /// The slot of a key, or [`FREE`]. To be asked anew for each event, just before it takes its
    /// place.
    pub(super) fn find(&self, hash: u32) -> u32 {
        if hash == NO_KEY {
            return NO_KEY;
        }
        self.by_hash.get(&hash).copied().unwrap_or(FREE)
    }

    /// A slot for a key that is [`FREE`].
    pub(super) fn occupy(&mut self, hash: u32) -> u32 {
        let slot = Slot {
            hash,
            ..Slot::default()
        };
        let number = match self.vacant.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).expect("as many as the bus has room for events")
            }
        };
        self.by_hash.insert(hash, number);
        number
    }

    /// Gives a slot up that has no events and behind which none wait.
    pub(super) fn vacate(&mut self, number: u32) {
        let hash = self.slots[number as usize].hash;
        self.by_hash.remove(&hash);
        self.vacant.push(number);
    }
}

/// The hash of an event's topic and key.
pub(super) fn hash_of(outgoing: &Outgoing) -> u32 {
    let Some(key) = key_of(outgoing) else {
        return NO_KEY;
    };
    let hash = FixedState::with_seed(0).hash_one((outgoing.topic.name(), key));
    let [_, _, _, _, lower @ ..] = hash.to_be_bytes();
    u32::from_be_bytes(lower).min(FREE - 1)
}

/// What order goes by.
pub(super) fn key_of(outgoing: &Outgoing) -> Option<&[u8]> {
    match &outgoing.content {
        Content::Event(event) => event.key().map(str::as_bytes),
        Content::Raw(record) => record.key.as_deref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_slot_until_that_is_given_up() {
        let mut keys = Keys::default();
        assert_eq!(keys.find(7), FREE);
        let (seven, eight) = (keys.occupy(7), keys.occupy(8));
        assert_ne!(seven, eight);
        assert_eq!((keys.find(7), keys.find(8)), (seven, eight));
        keys.vacate(seven);
        assert_eq!((keys.find(7), keys.find(8)), (FREE, eight));
    }

    #[test]
    fn no_more_slots_are_made_than_keys_are_out_at_once() {
        let mut keys = Keys::default();
        for hash in 0..1000 {
            let (first, second) = (keys.occupy(hash), keys.occupy(hash + 5000));
            keys.slot(first).entries = 3;
            keys.vacate(first);
            keys.vacate(second);
        }
        assert_eq!((keys.slots.len(), keys.by_hash.len()), (2, 0));
        let again = keys.occupy(1);
        assert_eq!(keys.slot(again).entries, 0);
    }

    #[test]
    fn what_has_no_key_has_no_slot() {
        assert_eq!(Keys::default().find(NO_KEY), NO_KEY);
    }
}
