//! Events that wait for others of their key.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;

use super::group::Entry;

/// The events that wait until those before them of the same slot are done.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Those that stood in the queue when an earlier one of their slot left. Older than the rest.
    older: VecDeque<Entry>,
    newer: VecDeque<Entry>,
}

/// The lanes by slot.
#[derive(Debug, Default)]
pub(super) struct Lanes(HashMap<u32, Lane, RandomState>);

impl Lanes {
    pub(super) fn park_queued(&mut self, entry: Entry) {
        let lane = self.0.entry(entry.meta.slot).or_default();
        lane.older.push_back(entry);
    }

    pub(super) fn park_new(&mut self, entry: Entry) {
        let lane = self.0.entry(entry.meta.slot).or_default();
        lane.newer.push_back(entry);
    }

    /// Takes from the front of a lane what may go in one batch: events of one group, within
    /// limits, but at least one. Also says whether the lane still has some.
    pub(super) fn take(
        &mut self,
        slot: u32,
        limits: impl Fn(u32) -> (usize, usize),
    ) -> (Vec<Entry>, bool) {
        let Some(lane) = self.0.get_mut(&slot) else {
            return (Vec::new(), false);
        };
        lane.older.append(&mut lane.newer);
        let group = lane.older.front().map(|entry| entry.meta.group);
        let (max_events, max_bytes) = group.map_or((1, 0), limits);
        let mut bytes = 0;
        let fitting = lane.older.iter().take(max_events).take_while(|entry| {
            bytes += entry.meta.bytes as usize;
            Some(entry.meta.group) == group && bytes <= max_bytes
        });
        let count = fitting.count().max(1).min(lane.older.len());
        let set = lane.older.drain(..count).collect();
        let left = !lane.older.is_empty();
        if !left {
            self.0.remove(&slot);
        }
        (set, left)
    }

    /// Takes everything.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Entry> {
        let lanes = std::mem::take(&mut self.0).into_values();
        lanes.flat_map(|lane| lane.older.into_iter().chain(lane.newer))
    }
}
