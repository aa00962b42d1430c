//! Writing positions to the server.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::member::Member;
use super::reading::Owned;
use crate::asking::Partition;
use crate::error::{code_of, is_stale};

/// How long to wait before a commit that failed is tried again, while somebody waits for it.
const PAUSE: Duration = Duration::from_millis(50);

/// The longest sleep while an answer to a commit is awaited; the answer wakes the thread.
const LONGEST_SLEEP: Duration = Duration::from_millis(20);

impl Member {
    /// Commits what has moved, every commit interval. Does not wait for the answer.
    pub(super) fn commit_if_due(&mut self) {
        let now = Instant::now();
        if now < self.next_commit {
            return;
        }
        self.next_commit = now + self.plan.config.commit_interval;
        let moved = self.moved(|_| true, |owned| owned.requested);
        if let Err(code) = self.commit(&moved) {
            tracing::debug!(%code, "a commit could not be begun");
        }
    }

    /// Commits what is settled of some partitions and waits for the server's answer, trying
    /// again where that may help.
    pub(super) fn commit_all(
        &mut self,
        deadline: Instant,
        of: impl Fn(&Owned) -> bool,
    ) -> Result<(), RDKafkaErrorCode> {
        loop {
            let moved = self.moved(&of, |owned| owned.committed);
            if moved.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(RDKafkaErrorCode::OperationTimedOut);
            }
            if let Err(code) = self.commit_and_wait(&moved, deadline) {
                if is_stale(code) {
                    return Err(code);
                }
                thread::sleep(PAUSE);
            }
        }
    }

    /// Commits positions and waits for the answer.
    pub(super) fn commit_and_wait(
        &mut self,
        positions: &[(Partition, i64)],
        deadline: Instant,
    ) -> Result<(), RDKafkaErrorCode> {
        if positions.is_empty() {
            return Ok(());
        }
        self.commit_error = None;
        self.commit(positions)?;
        loop {
            self.poll_main();
            if self.commits_under_way == 0 {
                return self.commit_error.map_or(Ok(()), Err);
            }
            if Instant::now() >= deadline {
                return Err(RDKafkaErrorCode::OperationTimedOut);
            }
            thread::park_timeout(LONGEST_SLEEP);
        }
    }

    /// Takes up the server's answers.
    pub(super) fn take_commit_answers(&mut self) {
        for answer in self.consumer.context().take_commits() {
            self.commits_under_way = self.commits_under_way.saturating_sub(1);
            if let Some(code) = answer.error {
                tracing::debug!(%code, "a commit failed");
                self.commit_error = Some(code);
                for owned in &mut self.owned {
                    owned.requested = owned.committed;
                }
                continue;
            }
            for ((topic, partition), offset) in answer.positions {
                let owner = self.owned.iter_mut().find(|owned| {
                    owned.records.partition == partition && owned.records.topic.name() == topic
                });
                if let Some(owned) = owner {
                    owned.committed = Some(offset.unsigned_abs());
                }
            }
        }
    }

    fn commit(&mut self, positions: &[(Partition, i64)]) -> Result<(), RDKafkaErrorCode> {
        if positions.is_empty() {
            return Ok(());
        }
        let failed = |error| code_of(&error).unwrap_or(RDKafkaErrorCode::Fail);
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for ((topic, partition), offset) in positions {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
                .map_err(failed)?;
        }
        self.consumer
            .commit(&list, CommitMode::Async)
            .map_err(failed)?;
        self.commits_under_way += 1;
        for owned in &mut self.owned {
            let of = |(partition, _): &&(Partition, i64)| {
                partition.1 == owned.records.partition && partition.0 == owned.records.topic.name()
            };
            if let Some((_, offset)) = positions.iter().find(of) {
                owned.requested = Some(offset.unsigned_abs());
            }
        }
        Ok(())
    }

    /// The positions of some partitions that are not what is known of them.
    fn moved(
        &self,
        of: impl Fn(&Owned) -> bool,
        known: impl Fn(&Owned) -> Option<u64>,
    ) -> Vec<(Partition, i64)> {
        let some = self.owned.iter().filter(|owned| of(owned));
        let moved = some.filter_map(|owned| {
            let position = self.plan.shared.position(owned.records.source)?;
            let partition = (
                owned.records.topic.name().to_owned(),
                owned.records.partition,
            );
            let offset = i64::try_from(position).ok()?;
            (known(owned) != Some(position)).then_some((partition, offset))
        });
        moved.collect()
    }
}
