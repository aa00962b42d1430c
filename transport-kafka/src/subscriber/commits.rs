//! Writing positions to the server.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::Offset;

use super::member::Member;
use super::reading::Owned;
use crate::asking::{PAUSE, Partition};
use crate::error::{is_passing, is_stale};

/// The longest sleep while an answer to a commit is awaited; the answer wakes the thread.
const LONGEST_SLEEP: Duration = Duration::from_millis(20);

impl Member {
    /// Commits what has moved, every commit interval. Does not wait for the answer.
    pub(super) fn commit_if_due(&mut self) {
        let now = Instant::now();
        if now < self.next_commit || self.committer.is_busy {
            return;
        }
        self.next_commit = now + self.plan.config.commit_interval;
        let moved = self.moved(|_| true);
        if !moved.is_empty() {
            self.committer.commit(moved);
        }
    }

    /// Commits what is settled of some partitions and waits for the server's answer, trying
    /// again where that may help.
    pub(super) fn commit_all(
        &mut self,
        deadline: Instant,
        of: impl Fn(&Owned) -> bool,
    ) -> Result<(), RDKafkaErrorCode> {
        let mut error = RDKafkaErrorCode::OperationTimedOut;
        loop {
            let moved = self.moved(&of);
            if moved.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(error);
            }
            if let Err(code) = self.commit_and_wait(moved, deadline) {
                if is_stale(code) {
                    return Err(code);
                }
                error = code;
                thread::sleep(PAUSE);
            }
        }
    }

    /// Commits the positions that a group starts with, trying again where that may help.
    pub(super) fn commit_start(
        &mut self,
        positions: &[(Partition, i64)],
        deadline: Instant,
    ) -> Result<(), RDKafkaErrorCode> {
        loop {
            match self.commit_and_wait(positions.to_vec(), deadline) {
                Err(code) if is_passing(code) && Instant::now() < deadline => {
                    thread::sleep(PAUSE);
                }
                outcome => return outcome,
            }
        }
    }

    /// Commits positions and waits for the answer.
    fn commit_and_wait(
        &mut self,
        positions: Vec<(Partition, i64)>,
        deadline: Instant,
    ) -> Result<(), RDKafkaErrorCode> {
        if positions.is_empty() {
            return Ok(());
        }
        // The outcome of an earlier order is its own affair.
        let earlier = self.wait_for_committer(deadline);
        if self.committer.is_busy {
            return earlier;
        }
        self.committer.commit(positions);
        self.wait_for_committer(deadline)
    }

    /// Takes up the server's answer, if there is one.
    pub(super) fn take_commit_answer(&mut self) -> Result<(), RDKafkaErrorCode> {
        let Some(answer) = self.committer.answer() else {
            return Ok(());
        };
        if let Some(code) = answer.error {
            // What is not committed is tried again at the next interval.
            tracing::debug!(%code, "a commit failed");
            return Err(code);
        }
        for ((topic, partition), offset) in answer.positions {
            let owner = self.owned.iter_mut().find(|owned| {
                owned.records.partition == partition && owned.records.topic.name() == topic
            });
            if let Some(owned) = owner {
                owned.committed = Some(offset.unsigned_abs());
            }
        }
        Ok(())
    }

    /// Waits until the committer has nothing to do; the outcome is that of its last order.
    fn wait_for_committer(&mut self, deadline: Instant) -> Result<(), RDKafkaErrorCode> {
        while self.committer.is_busy {
            let answered = self.take_commit_answer();
            if !self.committer.is_busy {
                return answered;
            }
            if Instant::now() >= deadline {
                return Err(RDKafkaErrorCode::OperationTimedOut);
            }
            self.poll_main();
            thread::park_timeout(LONGEST_SLEEP);
        }
        Ok(())
    }

    /// The position that the server has of a partition, as far as this member has written it.
    pub(super) fn committed(&self, owned: &Owned) -> Option<u64> {
        let transacted = self.plan.shared.transacted(owned.records.source);
        transacted.max(owned.committed)
    }

    /// How far partitions are done of which everything there was is settled: the markers of
    /// transactions stand behind the last event, and nobody is delivered them.
    ///
    /// Not of one that has records which were not handed out, or had an error last: for the client
    /// those are consumed.
    ///
    /// Not where positions are written with what is published: this one could be late, and put
    /// one of those back.
    fn markers(&self) -> HashMap<u32, u64> {
        let mut markers = HashMap::new();
        if self.plan.subscription.exactly_once {
            return markers;
        }
        let idle = |owned: &&Owned| {
            let records = &owned.records;
            !owned.failed
                && owned.waiting.is_empty()
                && !self
                    .queue
                    .has_taken(records.topic.name(), records.partition)
                && self.plan.shared.is_idle(records.source)
        };
        let mut idle = self.owned.iter().filter(idle).peekable();
        if idle.peek().is_none() {
            return markers;
        }
        let Ok(positions) = self.consumer.position() else {
            return markers;
        };
        for owned in idle {
            let records = &owned.records;
            let found = positions.find_partition(records.topic.name(), records.partition);
            if let Some(Offset::Offset(position)) = found.map(|found| found.offset())
                && position > records.next
            {
                markers.insert(records.source, position.unsigned_abs());
            }
        }
        markers
    }

    /// The positions of some partitions that are not on the server.
    fn moved(&self, of: impl Fn(&Owned) -> bool) -> Vec<(Partition, i64)> {
        let markers = self.markers();
        let some = self.owned.iter().filter(|owned| of(owned));
        let moved = some.filter_map(|owned| {
            let position = self.plan.shared.position(owned.records.source);
            let position = position.max(markers.get(&owned.records.source).copied())?;
            let partition = (
                owned.records.topic.name().to_owned(),
                owned.records.partition,
            );
            let offset = i64::try_from(position).ok()?;
            (self.committed(owned) < Some(position)).then_some((partition, offset))
        });
        moved.collect()
    }
}
