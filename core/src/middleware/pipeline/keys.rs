//! Which keys are taken: what order per key goes by.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use crate::transport::{Content, Outgoing};

/// A power of two, well above the events that are out at a time (8 batches of 500): two keys in
/// one slot only wait for each other, so a collision costs time and never order. 256 KiB.
const SLOTS: usize = 1 << 14;

/// The slot of an event without a key, which waits for nobody.
pub(super) const NO_KEY: u32 = u32::MAX;

/// No batch has the slot's events: they are queued.
pub(super) const QUEUED: u32 = 0;

/// No batch has the slot's events: they stand in a set that is kept together, to be sent next or
/// after a pause.
pub(super) const SET: u32 = u32::MAX;

/// What is known of the events whose keys fall into one slot.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slot {
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
        if self.0.is_empty() {
            self.0.resize(SLOTS, Slot::default());
        }
        &mut self.0[slot as usize]
    }
}

/// The slot of an event, by its topic and key.
pub(super) fn slot_of(outgoing: &Outgoing) -> u32 {
    let Some(key) = key_of(outgoing) else {
        return NO_KEY;
    };
    let hash = FixedState::with_seed(0).hash_one((outgoing.topic.name(), key));
    // The mask leaves no more than fits.
    u32::try_from(hash & (SLOTS as u64 - 1)).unwrap_or_default()
}

/// What order goes by.
pub(super) fn key_of(outgoing: &Outgoing) -> Option<&[u8]> {
    match &outgoing.content {
        Content::Event(event) => event.key().map(str::as_bytes),
        Content::Raw(record) => record.key.as_deref(),
    }
}
