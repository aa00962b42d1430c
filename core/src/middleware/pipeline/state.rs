//! What waits and what is out, of one transport: decisions alone, under one lock, without waiting.

use std::collections::VecDeque;
use std::sync::Arc;

use super::group::{Batch, Entry, Group, GroupNames, Meta};
use super::keys::{FREE, Keys, NO_KEY, QUEUED, SET, Slot};
use super::lane::Lanes;
use crate::Text;
use crate::middleware::route::Route;

/// The state of a pipeline.
///
/// Order per key: while events of a slot are in a batch or a set, nobody else's of that slot
/// leave; while they are queued in one group, those of other groups wait in a lane. So of
/// each slot at most one batch is out, and what a batch has of it is in order.
#[derive(Debug)]
pub(super) struct State {
    pub(super) groups: Vec<Group>,
    names: GroupNames,
    keys: Keys,
    lanes: Lanes,
    last_batch: u32,
    epochs: Epochs,
    /// Groups that got sets from a lane and were not looked at since.
    woken: Vec<u32>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            groups: Vec::new(),
            names: GroupNames::default(),
            keys: Keys::default(),
            lanes: Lanes::default(),
            last_batch: 0,
            epochs: Epochs::default(),
            woken: Vec::new(),
        }
    }

    pub(super) fn group(&mut self, route: &Arc<Route>, name: Text) -> u32 {
        let next = u32::try_from(self.groups.len()).expect("groups are bounded by their names");
        self.names.find(route, name, next).unwrap_or_else(|group| {
            self.groups.push(Group::new(Arc::clone(route)));
            group
        })
    }

    pub(super) fn at(&mut self, group: u32) -> &mut Group {
        &mut self.groups[group as usize]
    }

    /// Starts a batch. The caller has seen to it that there is capacity.
    pub(super) fn open(&mut self, group: u32, capacity: usize) -> Batch {
        self.last_batch = match self.last_batch.wrapping_add(1) {
            QUEUED | SET => 1,
            id => id,
        };
        let id = self.last_batch;
        let group_state = self.at(group);
        group_state.in_flight += 1;
        group_state.taken += 1;
        Batch::new(id, group, Arc::clone(&group_state.route), capacity)
    }

    /// Finds the slot of an event that is about to get its place, under the same lock.
    pub(super) fn locate(&mut self, entry: &mut Entry) {
        entry.meta.slot = self.keys.find(entry.meta.hash);
    }

    /// Whether an event may go in a batch that starts now, once it is [located](Self::locate).
    pub(super) fn is_free(&self, entry: &Entry) -> bool {
        matches!(entry.meta.slot, NO_KEY | FREE)
    }

    /// Whether an event may go in a batch that is being filled, once it is
    /// [located](Self::locate).
    pub(super) fn may_join(&mut self, entry: &Entry, batch: &Batch) -> bool {
        if self.is_free(entry) {
            return true;
        }
        let slot = self.keys.slot(entry.meta.slot);
        !slot.parked && slot.batch == batch.id
    }

    /// Adds a new event to a batch that it [may join](Self::may_join).
    pub(super) fn join(&mut self, mut entry: Entry, batch: &mut Batch) {
        entry.meta.epoch = self.epochs.enter();
        if entry.meta.slot != NO_KEY {
            let slot = self.slot(&mut entry);
            slot.entries += 1;
            slot.batch = batch.id;
            slot.group = entry.meta.group;
        }
        let group = self.at(batch.group);
        group.events_out += 1;
        group.bytes_out += entry.meta.bytes as usize;
        batch.push(entry);
    }

    /// Lets a new event wait.
    pub(super) fn enqueue(&mut self, mut entry: Entry) {
        self.locate(&mut entry);
        entry.meta.epoch = self.epochs.enter();
        let group = entry.meta.group;
        if entry.meta.slot != NO_KEY {
            let slot = self.slot(&mut entry);
            let behind_own = slot.batch == QUEUED && slot.group == group;
            if slot.parked || (slot.entries > 0 && !behind_own) {
                slot.parked = true;
                self.lanes.park_new(entry);
                return;
            }
            slot.entries += 1;
            slot.group = group;
            slot.batch = QUEUED;
        }
        let group = self.at(group);
        group.queued_bytes += entry.meta.bytes as usize;
        group.queue.push_back(entry);
    }

    /// The slot of an event that takes its place now.
    fn slot(&mut self, entry: &mut Entry) -> &mut Slot {
        if entry.meta.slot == FREE {
            entry.meta.slot = self.keys.occupy(entry.meta.hash);
        }
        self.keys.slot(entry.meta.slot)
    }

    /// Takes the next batch of a group, if one may leave: `overdue` says that the wait is over.
    pub(super) fn take(&mut self, group: u32, overdue: bool) -> Option<Batch> {
        let waiting = self.at(group);
        if !waiting.is_waiting() || !waiting.has_capacity() || !(overdue || waiting.is_due()) {
            return None;
        }
        let capacity = waiting.queue.len() + waiting.sets.front().map_or(0, Vec::len);
        let capacity = capacity.min(waiting.route.batch.max_events);
        let mut batch = self.open(group, capacity);
        loop {
            self.take_sets(&mut batch);
            if !self.at(group).sets.is_empty() || !self.take_queued(&mut batch) {
                break;
            }
        }
        if batch.is_empty() {
            self.at(group).in_flight -= 1;
            return None;
        }
        let out = self.at(group);
        out.events_out += batch.len();
        out.bytes_out += batch.bytes;
        Some(batch)
    }

    fn take_sets(&mut self, batch: &mut Batch) {
        let State { groups, keys, .. } = self;
        let sets = &mut groups[batch.group as usize].sets;
        while let Some(set) = sets.front() {
            let bytes = set.iter().map(|entry| entry.meta.bytes as usize).sum();
            if !batch.fits(set.len(), bytes) {
                return;
            }
            for entry in sets.pop_front().into_iter().flatten() {
                if entry.meta.slot != NO_KEY {
                    keys.slot(entry.meta.slot).batch = batch.id;
                }
                batch.push(entry);
            }
        }
    }

    /// Takes from the queue until the batch is full. Whether a set came out of a lane meanwhile.
    fn take_queued(&mut self, batch: &mut Batch) -> bool {
        loop {
            let waiting = &mut self.groups[batch.group as usize];
            let front = waiting.queue.front();
            if front.is_none_or(|entry| !batch.fits(1, entry.meta.bytes as usize)) {
                return false;
            }
            let Some(entry) = waiting.queue.pop_front() else {
                return false;
            };
            waiting.queued_bytes -= entry.meta.bytes as usize;
            if entry.meta.slot == NO_KEY {
                batch.push(entry);
                continue;
            }
            let slot = self.keys.slot(entry.meta.slot);
            if !slot.parked && (slot.batch == QUEUED || slot.batch == batch.id) {
                slot.batch = batch.id;
                batch.push(entry);
            } else if self.park_queued(entry) {
                return true;
            }
        }
    }

    /// Moves an event from the queue to its lane. Whether it came out again at once.
    fn park_queued(&mut self, entry: Entry) -> bool {
        let number = entry.meta.slot;
        self.lanes.park_queued(entry);
        let slot = self.keys.slot(number);
        slot.parked = true;
        slot.entries -= 1;
        let free = slot.entries == 0;
        if free {
            self.release(number);
        }
        free
    }

    /// The last event of a slot is done: the next ones come out of its lane, as a set.
    fn release(&mut self, number: u32) {
        let State {
            groups,
            keys,
            lanes,
            woken,
            ..
        } = self;
        let (set, left) = lanes.take(number, |group| {
            let limits = &groups[group as usize].route.batch;
            (limits.max_events, limits.max_bytes)
        });
        let slot = keys.slot(number);
        slot.parked = left;
        slot.batch = QUEUED;
        let Some(first) = set.first() else {
            return keys.vacate(number);
        };
        let group = first.meta.group;
        slot.entries = u32::try_from(set.len()).expect("a set is bounded by the room of the bus");
        slot.batch = SET;
        slot.group = group;
        groups[group as usize].sets.push_back(set);
        woken.push(group);
    }

    /// A batch came back. What `again` says yes to, by its number in the batch, is kept in its
    /// place; all else is done.
    pub(super) fn settle(&mut self, batch: &Batch, again: impl Fn(usize) -> bool) {
        let group = self.at(batch.group);
        group.in_flight -= 1;
        group.events_out -= batch.len();
        group.bytes_out -= batch.bytes;
        for (index, meta) in batch.meta.iter().enumerate() {
            if !again(index) {
                self.finish(meta);
            } else if meta.slot != NO_KEY {
                self.keys.slot(meta.slot).batch = SET;
            }
        }
    }

    /// An event is done.
    pub(super) fn finish(&mut self, meta: &Meta) {
        self.epochs.leave(meta.epoch);
        if meta.slot == NO_KEY {
            return;
        }
        let slot = self.keys.slot(meta.slot);
        slot.entries -= 1;
        if slot.entries == 0 {
            if slot.parked {
                self.release(meta.slot);
            } else {
                self.keys.vacate(meta.slot);
            }
        } else if slot.batch != SET {
            slot.batch = QUEUED;
        }
    }

    /// Events whose pause is over are sent before what is queued.
    pub(super) fn send_again(&mut self, group: u32, set: Vec<Entry>) {
        self.at(group).sets.push_back(set);
    }

    /// Batches that may leave: of a group, and of those that got something out of a lane.
    pub(super) fn ready(&mut self, group: u32, overdue: bool, out: &mut Vec<Batch>) {
        let mut overdue = overdue;
        while let Some(batch) = self.take(group, std::mem::take(&mut overdue)) {
            out.push(batch);
        }
        while let Some(woken) = self.woken.pop() {
            while let Some(batch) = self.take(woken, false) {
                out.push(batch);
            }
        }
    }

    /// Everything that waits, for an end that can't wait for it.
    pub(super) fn drain(&mut self) -> Vec<Entry> {
        let mut left = Vec::new();
        for group in &mut self.groups {
            left.extend(group.sets.drain(..).flatten());
            left.extend(group.queue.drain(..));
            group.queued_bytes = 0;
        }
        left.extend(self.lanes.drain());
        for entry in &left {
            self.epochs.leave(entry.meta.epoch);
        }
        left
    }

    pub(super) fn epochs(&mut self) -> &mut Epochs {
        &mut self.epochs
    }

    pub(super) fn in_flight(&self) -> usize {
        self.groups.iter().map(|group| group.in_flight).sum()
    }
}

/// Which events were given before a flush.
#[derive(Debug)]
pub(super) struct Epochs {
    /// The number of the first in `open`.
    first: u64,
    /// How many events of each epoch are not done. The last one is the present.
    open: VecDeque<usize>,
}

impl Default for Epochs {
    fn default() -> Self {
        Self {
            first: 0,
            open: VecDeque::from([0]),
        }
    }
}

impl Epochs {
    fn enter(&mut self) -> u64 {
        let last = self.open.len() - 1;
        self.open[last] += 1;
        self.first + last as u64
    }

    fn leave(&mut self, epoch: u64) {
        let index = usize::try_from(epoch - self.first).expect("as many as stand in memory");
        self.open[index] -= 1;
        while self.open.len() > 1 && self.open[0] == 0 {
            self.open.pop_front();
            self.first += 1;
        }
    }

    /// Ends the present epoch. It [is over](Self::is_over) once its events are done.
    pub(super) fn end(&mut self) -> u64 {
        let present = self.open.len() - 1;
        if present > 0 && self.open[present] == 0 {
            return self.first + present as u64 - 1;
        }
        let ended = self.first + present as u64;
        self.open.push_back(0);
        if self.open[0] == 0 {
            self.open.pop_front();
            self.first += 1;
        }
        ended
    }

    pub(super) fn is_over(&self, epoch: u64) -> bool {
        self.first > epoch
    }
}
