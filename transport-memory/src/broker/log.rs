//! One topic's log: a queue of records with ascending offsets, bounded in number and bytes.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use bytes::Bytes;
use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use polybus_core::transport::{Content, Headers, Outgoing};
use polybus_core::{Event, Timestamp};

/// How much a topic holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) events: usize,
    pub(crate) bytes: u64,
    /// How many events that every group has settled.
    pub(crate) settled: usize,
}

/// The hash of an event's key. Two keys with the same hash are treated as one, which costs
/// them concurrency and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyHash(pub(crate) u64);

impl KeyHash {
    pub(crate) fn of(key: &str) -> Self {
        // Another seed in each process: nobody can choose keys that meet.
        let state = SeedableRandomState::with_seed(0, SharedSeed::global_random());
        Self(state.hash_one(key))
    }
}

/// What is worked out about an event before the lock is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    pub(crate) key: Option<KeyHash>,
    pub(crate) size: u64,
}

impl Measure {
    pub(crate) fn of(outgoing: &Outgoing) -> Self {
        let headers = outgoing.headers.iter();
        let headers: usize = headers
            .map(|(name, value)| name.len() + value.map_or(0, Bytes::len))
            .sum();
        let key = outgoing.event().and_then(Event::key);
        Self {
            key: key.map(KeyHash::of),
            size: (outgoing.size() + headers) as u64,
        }
    }
}

/// What was published.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) content: Content,
    /// Headers beside an event's attributes; those of a raw record are in it.
    pub(crate) headers: Headers,
    pub(crate) key: Option<KeyHash>,
    size: u64,
    stored_at: Timestamp,
}

impl Record {
    fn new(outgoing: &Outgoing, measure: Measure, stored_at: Timestamp) -> Self {
        let headers = outgoing.headers.clone();
        let mut content = outgoing.content.clone();
        let headers = match &mut content {
            Content::Event(_) => headers,
            Content::Raw(raw) => {
                let further = headers.into_iter();
                further.for_each(|(name, value)| raw.headers.push(name, value));
                Headers::new()
            }
        };
        let Measure { key, size } = measure;
        Self {
            content,
            headers,
            key,
            size,
            stored_at,
        }
    }
}

/// The records of a topic.
#[derive(Debug)]
pub(crate) struct Log {
    limits: Limits,
    base: u64,
    records: VecDeque<Record>,
    bytes: u64,
}

impl Log {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            base: 0,
            records: VecDeque::new(),
            bytes: 0,
        }
    }

    /// The offset of the oldest record that is held.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The offset that the next record gets.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.records.len() as u64
    }

    pub(crate) fn len(&self) -> u64 {
        self.records.len() as u64
    }

    /// The record at an offset between `base` and `end`.
    pub(crate) fn record(&self, offset: u64) -> &Record {
        &self.records[(offset - self.base) as usize]
    }

    /// The records from an offset on, with theirs.
    pub(crate) fn records_from(&self, offset: u64) -> impl Iterator<Item = (u64, &Record)> {
        let skipped = offset.saturating_sub(self.base);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        (self.base..).zip(&self.records).skip(skipped)
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    /// The offset of the first record stored at or after a point in time; the end if there is
    /// none.
    pub(crate) fn first_since(&self, time: Timestamp) -> u64 {
        let older = self
            .records
            .partition_point(|record| record.stored_at < time);
        self.base + older as u64
    }

    pub(crate) fn has_room(&self, events: usize, bytes: u64) -> bool {
        self.records.len() + events <= self.limits.events && self.bytes + bytes <= self.limits.bytes
    }

    /// Stores a record, whether or not there is room, and returns its offset.
    ///
    /// Stored times never go back, though a system's clock may: [`first_since`](Self::first_since)
    /// searches by them.
    pub(crate) fn append(&mut self, outgoing: &Outgoing, measure: Measure, now: Timestamp) -> u64 {
        let last = self.records.back().map(|last| last.stored_at);
        let stored_at = last.map_or(now, |last| last.max(now));
        let offset = self.end();
        self.bytes += measure.size;
        let record = Record::new(outgoing, measure, stored_at);
        self.records.push_back(record);
        offset
    }

    /// Removes the oldest record if it is before an offset.
    pub(crate) fn trim_one(&mut self, before: u64) -> Option<Record> {
        if self.base >= before {
            return None;
        }
        let record = self.records.pop_front()?;
        self.base += 1;
        self.bytes -= record.size;
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use polybus_core::Topic;
    use polybus_core::transport::RawRecord;

    use super::*;

    fn append(log: &mut Log, size: usize, second: i64) -> u64 {
        let raw = RawRecord::new(None, Headers::new(), Some(vec![0; size].into()));
        let outgoing = Outgoing::raw(Topic::new("t"), raw);
        log.append(&outgoing, Measure::of(&outgoing), at(second))
    }

    fn log(events: usize, bytes: u64) -> Log {
        let settled = events;
        Log::new(Limits {
            events,
            bytes,
            settled,
        })
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn room_is_bounded_by_number_and_by_bytes() {
        let mut log = log(2, 100);
        assert!(log.has_room(1, 100));
        assert!(!log.has_room(1, 101));
        assert_eq!(append(&mut log, 60, 1), 0);
        assert!(log.has_room(1, 40));
        assert!(!log.has_room(1, 41));
        assert_eq!(append(&mut log, 1, 1), 1);
        assert!(!log.has_room(1, 1));
    }

    #[test]
    fn trimming_keeps_offsets_and_gives_back_bytes() {
        let mut log = log(2, 100);
        append(&mut log, 60, 1);
        append(&mut log, 40, 1);
        assert!(log.trim_one(0).is_none());
        assert_eq!(log.trim_one(1).unwrap().size, 60);
        assert!(log.trim_one(1).is_none());
        assert_eq!((log.base(), log.end(), log.len()), (1, 2, 1));
        assert_eq!(log.record(1).size, 40);
        assert!(log.has_room(1, 60));
        assert_eq!(append(&mut log, 60, 1), 2);
    }

    #[test]
    fn the_first_record_since_a_time_is_found_though_the_clock_goes_back() {
        let mut log = log(10, 1000);
        for second in [10, 20, 15, 30] {
            append(&mut log, 1, second);
        }
        log.trim_one(1);
        for (second, offset) in [(5, 1), (16, 1), (20, 1), (21, 3), (30, 3), (31, 4)] {
            assert_eq!(log.first_since(at(second)), offset, "{second}");
        }
    }

    #[test]
    fn headers_count_and_those_of_a_raw_record_are_joined() {
        let mut own = Headers::new();
        own.push("a", Some(Bytes::from_static(b"1")));
        let mut further = Headers::new();
        further.push("bb", None);
        let raw = RawRecord::new(None, own, None);
        let outgoing = Outgoing::raw(Topic::new("t"), raw).with_headers(further);
        let mut log = log(1, 100);
        log.append(&outgoing, Measure::of(&outgoing), at(1));
        let record = log.record(0);
        assert_eq!(record.size, 4);
        assert!(record.headers.is_empty());
        let Content::Raw(raw) = &record.content else {
            panic!("not raw");
        };
        let names: Vec<_> = raw.headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "bb"]);
    }
}
