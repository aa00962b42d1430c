//! A topic: its log, and where each group stands on it.

use polybus_core::Topic;
use polybus_core::topic::TopicSettings;
use polybus_core::transport::Start;

use super::cursor::Cursor;
use super::log::{Log, Record};

/// A topic's index, which is the `source` of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TopicId(pub(crate) u32);

/// A group's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupId(pub(crate) usize);

/// A topic's log and its groups.
#[derive(Debug)]
pub(crate) struct TopicState {
    pub(crate) topic: Topic,
    pub(crate) log: Log,
    pub(crate) cursors: Vec<(GroupId, Cursor)>,
    /// What it was said to be like.
    pub(crate) settings: TopicSettings,
}

impl TopicId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

impl TopicState {
    /// The offset before which every group has settled everything. A topic that no group reads
    /// yet keeps everything for the first.
    fn settled(&self) -> u64 {
        let lows = self.cursors.iter().map(|(_, cursor)| cursor.low());
        lows.min().unwrap_or(0)
    }

    /// Trims what every group has settled until there is room for so much.
    pub(crate) fn make_room(
        &mut self,
        events: usize,
        bytes: u64,
        trimmed: &mut Vec<Record>,
    ) -> bool {
        while !self.log.has_room(events, bytes) {
            let Some(record) = self.log.trim_one(self.settled()) else {
                return false;
            };
            trimmed.push(record);
        }
        true
    }

    /// Trims what every group has settled, but for the newest of it.
    pub(crate) fn trim_settled(&mut self, keep: usize, trimmed: &mut Vec<Record>) {
        let before = self.settled().saturating_sub(keep as u64);
        while let Some(record) = self.log.trim_one(before) {
            trimmed.push(record);
        }
    }

    /// Removes everything before an offset. The cursors for which events became available.
    pub(crate) fn purge(&mut self, bound: u64, trimmed: &mut Vec<Record>) -> Vec<usize> {
        let bound = bound.min(self.log.end());
        let mut available = Vec::new();
        for (index, (_, cursor)) in self.cursors.iter_mut().enumerate() {
            if cursor.settle_before(&self.log, bound) {
                available.push(index);
            }
        }
        while let Some(record) = self.log.trim_one(bound) {
            trimmed.push(record);
        }
        available
    }

    /// The index of a group's cursor, which is made if there is none.
    pub(crate) fn cursor(&mut self, group: GroupId, start: Start) -> usize {
        let known = self.cursors.iter().position(|(id, _)| *id == group);
        known.unwrap_or_else(|| {
            self.cursors.push((group, self.start(start)));
            self.cursors.len() - 1
        })
    }

    /// Moves a group to another place; what it had there is forgotten.
    pub(crate) fn reset(&mut self, group: GroupId, to: Start) {
        let index = self.cursor(group, to);
        self.cursors[index].1 = self.start(to);
    }

    fn start(&self, start: Start) -> Cursor {
        Cursor::new(match start {
            Start::Now => self.log.end(),
            Start::Time(time) => self.log.first_since(time),
            _ => self.log.base(),
        })
    }
}
