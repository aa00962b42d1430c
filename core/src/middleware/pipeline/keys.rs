//! Which keys are taken: what order per key goes by.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use crate::transport::{Content, Outgoing};

/// A key has its slot in one bucket of these, which are one or two lines of cache.
const BUCKET: usize = 4;

/// A power of two. With 4000 keys out (8 batches of 500) a bucket is full for one key in a
/// thousand, with 10,000 for one in a hundred. 640 KiB.
const SLOTS: usize = 1 << 15;

/// The hash of an event without a key, and its slot, which waits for nobody.
pub(super) const NO_KEY: u32 = u32::MAX;

/// No batch has the slot's events: they are queued.
pub(super) const QUEUED: u32 = 0;

/// No batch has the slot's events: they stand in a set that is kept together, to be sent next or
/// after a pause.
pub(super) const SET: u32 = u32::MAX;

/// What is known of the events of one key, or of some keys that had to share a slot: those wait
/// for each other, which costs time and never order.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slot {
    /// The hash of the key that the slot was free for.
    tag: u32,
    /// Whether it has events of other keys as well.
    shared: bool,
    /// How many are queued, in a set or in a batch. Those of a lane are not counted.
    pub(super) entries: u32,
    /// The batch that they are in, [`SET`] or [`QUEUED`].
    pub(super) batch: u32,
    /// The group they belong to.
    pub(super) group: u32,
    /// Whether others wait in a lane.
    pub(super) parked: bool,
}

impl Slot {
    pub(super) fn is_free(&self) -> bool {
        self.entries == 0 && !self.parked
    }
}

/// The slots of one transport. Made when the first event with a key comes.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Slot>);

impl Keys {
    pub(super) fn slot(&mut self, slot: u32) -> &mut Slot {
        &mut self.0[slot as usize]
    }

    /// The slot of a key. To be asked anew for each event, just before it takes its place.
    ///
    /// While events of a key are somewhere, later ones are led there: to the slot that bears the
    /// key's hash, or to the one slot of the bucket that the key would share.
    pub(super) fn find(&mut self, hash: u32) -> u32 {
        if hash == NO_KEY {
            return NO_KEY;
        }
        if self.0.is_empty() {
            self.0.resize(SLOTS, Slot::default());
        }
        let first = (hash as usize * BUCKET) & (SLOTS - 1);
        // The upper bits: the lower ones chose the bucket.
        let to_share = (hash >> 30) as usize;
        let bucket = &mut self.0[first..first + BUCKET];
        let mut free = None;
        for (index, slot) in bucket.iter().enumerate() {
            if slot.is_free() {
                free = free.or(Some(index));
            } else if slot.tag == hash {
                return number(first + index);
            }
        }
        let own = match free {
            Some(free) if bucket[to_share].is_free() || !bucket[to_share].shared => free,
            _ => {
                bucket[to_share].shared = true;
                return number(first + to_share);
            }
        };
        bucket[own].tag = hash;
        bucket[own].shared = false;
        number(first + own)
    }
}

fn number(slot: usize) -> u32 {
    u32::try_from(slot).expect("there are fewer slots")
}

/// The hash of an event's topic and key.
pub(super) fn hash_of(outgoing: &Outgoing) -> u32 {
    let Some(key) = key_of(outgoing) else {
        return NO_KEY;
    };
    let hash = FixedState::with_seed(0).hash_one((outgoing.topic.name(), key));
    let [_, _, _, _, lower @ ..] = hash.to_be_bytes();
    u32::from_be_bytes(lower).min(NO_KEY - 1)
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

    fn occupy(keys: &mut Keys, hash: u32) -> u32 {
        let slot = keys.find(hash);
        keys.slot(slot).entries += 1;
        slot
    }

    /// Hashes of one bucket that would share slot 0, 1, 2, 3, 0, ..
    fn of_one_bucket(count: u32) -> impl Iterator<Item = u32> {
        let buckets = (SLOTS / BUCKET) as u32;
        (0..count).map(move |number| number * buckets + 7 + ((number & 3) << 30))
    }

    #[test]
    fn keys_of_a_bucket_have_slots_of_their_own_while_there_are_some() {
        let mut keys = Keys::default();
        let mut slots: Vec<_> = of_one_bucket(4)
            .map(|hash| occupy(&mut keys, hash))
            .collect();
        let again: Vec<_> = of_one_bucket(4).map(|hash| keys.find(hash)).collect();
        assert_eq!(slots, again);
        slots.dedup();
        assert_eq!(slots.len(), 4);
    }

    #[test]
    fn a_key_that_shares_a_slot_stays_there_until_the_slot_is_free() {
        let mut keys = Keys::default();
        let hashes: Vec<_> = of_one_bucket(5).collect();
        let slots: Vec<_> = hashes.iter().map(|hash| occupy(&mut keys, *hash)).collect();
        let (shared, other) = (slots[4], slots[1]);
        assert_eq!(shared, slots[0]);
        // The event of another key is done: its slot is free, but the fifth key is not in it.
        keys.slot(other).entries = 0;
        assert_eq!(keys.find(hashes[4]), shared);
        assert_eq!(keys.find(hashes[0]), shared);
        // Both events are done.
        keys.slot(shared).entries = 0;
        assert_eq!(keys.find(hashes[4]), slots[0].min(other));
    }
}
