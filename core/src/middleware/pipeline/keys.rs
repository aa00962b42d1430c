//! Which keys are taken: what order per key goes by.

use std::hash::BuildHasher;

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

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
    by_hash: Table,
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
        self.by_hash.find(hash).unwrap_or(FREE)
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
        self.by_hash.remove(hash);
        self.vacant.push(number);
    }
}

/// Numbers by hashes, which are spread well already: an entry stands at the place that its hash
/// says, or behind it. Half of the places are empty at least, so that it is found at once.
#[derive(Debug, Default)]
struct Table {
    /// None, or a power of two.
    places: Vec<(u32, u32)>,
    length: usize,
}

/// No event has this hash.
const EMPTY: (u32, u32) = (NO_KEY, 0);

impl Table {
    fn find(&self, hash: u32) -> Option<u32> {
        let (found, number) = *self.places.get(self.place(hash)?)?;
        (found == hash).then_some(number)
    }

    /// Adds a hash that is not there.
    fn insert(&mut self, hash: u32, number: u32) {
        if 2 * (self.length + 1) > self.places.len() {
            let wider = vec![EMPTY; (2 * self.places.len()).max(16)];
            let old = std::mem::replace(&mut self.places, wider);
            self.length = 0;
            for (hash, number) in old.into_iter().filter(|it| *it != EMPTY) {
                self.insert(hash, number);
            }
        }
        let place = self.place(hash).expect("there are places");
        self.places[place] = (hash, number);
        self.length += 1;
    }

    fn remove(&mut self, hash: u32) {
        let Some(mut hole) = self.place(hash).filter(|at| self.places[*at] != EMPTY) else {
            return;
        };
        self.length -= 1;
        // What stands behind it because its place was taken moves up.
        let last = self.places.len() - 1;
        let mut next = hole;
        loop {
            next = (next + 1) & last;
            let entry = self.places[next];
            if entry == EMPTY {
                break;
            }
            let own = entry.0 as usize & last;
            let from_own = next.wrapping_sub(own) & last;
            let from_hole = next.wrapping_sub(hole) & last;
            if from_own >= from_hole {
                self.places[hole] = entry;
                hole = next;
            }
        }
        self.places[hole] = EMPTY;
    }

    /// Where a hash stands, or is to be put.
    fn place(&self, hash: u32) -> Option<usize> {
        let last = self.places.len().checked_sub(1)?;
        let mut place = hash as usize & last;
        while self.places[place] != EMPTY && self.places[place].0 != hash {
            place = (place + 1) & last;
        }
        Some(place)
    }
}

/// The hash of an event's topic and key.
pub(super) fn hash_of(outgoing: &Outgoing) -> u32 {
    let Some(key) = key_of(outgoing) else {
        return NO_KEY;
    };
    // Another seed in each process: nobody can choose keys that meet.
    let state = SeedableRandomState::with_seed(0, SharedSeed::global_random());
    let hash = state.hash_one((outgoing.topic.name(), key));
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
        assert_eq!((keys.slots.len(), keys.by_hash.length), (2, 0));
        let again = keys.occupy(1);
        assert_eq!(keys.slot(again).entries, 0);
    }

    #[test]
    fn a_table_finds_what_is_in_it_however_hashes_meet() {
        let mut table = Table::default();
        let mut known = std::collections::HashMap::new();
        let mut state = 1_u32;
        for number in 0..20_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Few lower bits, so that most places are taken, and some at the end of the table.
            let hash = [state >> 22, (state >> 20) | 0xff00, u32::MAX - 2][number % 3];
            match known.remove(&hash) {
                Some(_) => table.remove(hash),
                None => {
                    known.insert(hash, number as u32);
                    table.insert(hash, number as u32);
                }
            }
            assert_eq!(table.length, known.len());
            assert_eq!(table.find(hash), known.get(&hash).copied());
            if number % 97 == 0 {
                assert!(known.iter().all(|(it, n)| table.find(*it) == Some(*n)));
            }
        }
        assert!(known.len() > 100);
        table.remove(5_000_000);
        assert_eq!(table.length, known.len());
    }

    #[test]
    fn what_has_no_key_has_no_slot() {
        assert_eq!(Keys::default().find(NO_KEY), NO_KEY);
    }
}
