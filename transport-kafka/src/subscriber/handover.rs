//! Taking partitions on and handing them over, as the group shares them out.
//!
//! The client gives notice of a partition that is to go; the group waits for the answer. In this
//! order: what is queued of it is dropped, what was delivered is waited for, what is settled is
//! committed, a new epoch makes later settlements stale, and only then is it let go.

use std::collections::VecDeque;
use std::thread;
use std::time::Instant;

use polybus_core::Topic;
use polybus_core::transport::{AckToken, Subscription};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;

use super::context::{Rebalance, assign, unassign};
use super::member::Member;
use super::reading::{Owned, Records};
use super::start;
use crate::asking::Partition;
use crate::error::{code_of, is_stale};

/// How far a partition was done that was lost before the server knew.
///
/// A member that was out of touch for too long, over a restart of its broker say, may get its
/// partition back at once. If nobody has written a position since, its own still holds.
pub(super) struct Unwritten {
    committed: i64,
    done: i64,
}

/// Partitions that are being handed over.
pub(super) struct Handover {
    partitions: TopicPartitionList,
    sources: Vec<u32>,
    deadline: Instant,
}

impl Member {
    pub(super) fn rebalance(&mut self, rebalance: Rebalance) {
        match rebalance {
            Rebalance::Assign(partitions) => self.take_on(&partitions),
            Rebalance::Revoke(partitions) => self.give_notice(partitions),
        }
    }

    /// Takes partitions on, each from the group's position.
    fn take_on(&mut self, list: &TopicPartitionList) {
        let partitions = partitions_of(list);
        tracing::debug!(count = partitions.len(), "the group gives partitions");
        let positions = self.positions(&partitions);
        let taken = self.assign(&partitions, positions.as_deref().ok());
        self.learn_marks(&partitions);
        let error = positions.err().or(taken.err());
        if let Some(code) = error {
            let error = self.plan.origin.code("subscribe", code);
            if self.shares > 0 {
                tracing::warn!(%error, "partitions were taken on without knowing their position");
                self.plan.shared.report(error);
            } else {
                self.failure = Some(error);
            }
        }
        // Who has the others now begins with what the server knows.
        self.repeated |= !self.unwritten.is_empty();
        self.unwritten.clear();
        self.shares += 1;
    }

    /// Asks what is noted of partitions, so that their first events need not wait for it.
    fn learn_marks(&self, partitions: &[Partition]) {
        let records = self.owned.iter().map(|owned| &owned.records);
        let owned = records.map(|it| {
            let partition = (it.topic.name().to_owned(), it.partition);
            (AckToken::new(it.source, it.epoch, [0, 0]), partition)
        });
        let new = owned.filter(|(_, partition)| partitions.contains(partition));
        self.plan.probation.learn_early(new.collect());
    }

    /// The positions to start from. Those that the server does not have yet are written there
    /// at once, so that they hold even if this member dies before it reads. A position that this
    /// member could not write before it lost the partition is written now, if the server still
    /// has the one before.
    fn positions(&mut self, partitions: &[Partition]) -> Result<Vec<i64>, RDKafkaErrorCode> {
        let config = &self.plan.config;
        let within = match self.plan.subscription.exactly_once {
            // A transaction of a member that died may have to end first.
            true => config.operation_deadline.max(config.join_deadline),
            false => config.operation_deadline,
        };
        let deadline = Instant::now() + within;
        let Subscription { start, .. } = self.plan.subscription;
        // A partition that appears after the group was joined is read from its beginning.
        let (subscribed, early) = (&self.subscribed, self.shares == 0);
        let named = |partition: &Partition| early && subscribed.contains(partition);
        let mut positions = start::positions(&self.consumer, partitions, start, named, within)
            .map_err(|error| code_of(&error).unwrap_or(RDKafkaErrorCode::Fail))?;
        for (partition, position) in partitions.iter().zip(&mut positions.all) {
            if let Some(unwritten) = self.unwritten.remove(partition)
                && unwritten.committed == *position
            {
                *position = unwritten.done;
                positions.new.push((partition.clone(), unwritten.done));
            }
        }
        self.commit_start(&positions.new, deadline)?;
        Ok(positions.all)
    }

    /// Tells the client that the partitions are taken on. Each gets its queue first, so that no
    /// record goes to the main one. Without positions the client looks them up itself.
    fn assign(
        &mut self,
        partitions: &[Partition],
        positions: Option<&[i64]>,
    ) -> Result<(), RDKafkaErrorCode> {
        let failed = |error| code_of(&error).unwrap_or(RDKafkaErrorCode::Fail);
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (index, (topic, partition)) in partitions.iter().enumerate() {
            let position = positions.map(|positions| positions[index]);
            let offset = position.map_or(Offset::Invalid, Offset::Offset);
            list.add_partition_offset(topic, *partition, offset)
                .map_err(failed)?;
            self.own(topic, *partition, position);
        }
        assign(&self.consumer, &list).map_err(failed)
    }

    fn own(&mut self, topic: &str, partition: i32, position: Option<i64>) {
        // An older tap of the same partition would close the new one.
        self.owned
            .retain(|o| o.records.partition != partition || o.records.topic.name() != topic);
        let Some(tap) = self.queue.tap(topic, partition) else {
            tracing::error!(topic, partition, "the client has no queue for a partition");
            return;
        };
        let topics = &self.plan.subscription.topics;
        let known = topics.iter().find(|known| known.name() == topic).cloned();
        let topic = known.unwrap_or_else(|| Topic::new(topic));
        let (source, epoch) = self.plan.shared.own(&topic, partition);
        self.owned.push(Owned {
            tap,
            waiting: VecDeque::new(),
            may_read: true,
            records: Records {
                topic,
                partition,
                source,
                epoch,
                next: position.unwrap_or(0),
            },
            committed: position.map(i64::unsigned_abs),
            failed: false,
        });
    }

    /// Stops delivering of partitions that are to go.
    fn give_notice(&mut self, partitions: TopicPartitionList) {
        let gone = partitions_of(&partitions);
        tracing::debug!(count = gone.len(), "the group takes partitions");
        let goes = |owned: &&Owned| {
            gone.iter().any(|(topic, partition)| {
                owned.records.partition == *partition && owned.records.topic.name() == topic
            })
        };
        let sources = self.owned.iter().filter(goes).map(|o| o.records.source);
        let sources: Vec<u32> = sources.collect();
        self.plan.shared.revoke(&sources);
        self.handover = Some(Handover {
            partitions,
            sources,
            deadline: Instant::now() + self.plan.config.drain_deadline,
        });
        self.hand_over_if_drained();
    }

    /// Lets partitions go once everything delivered of them is settled or released, or it is
    /// high time, or they are another member's already.
    pub(super) fn hand_over_if_drained(&mut self) {
        let Some(handover) = &self.handover else {
            return;
        };
        let lost = self.consumer.assignment_lost();
        let late = self.leaving || Instant::now() >= handover.deadline;
        if !lost && !late && !self.plan.shared.is_drained(&handover.sources) {
            return;
        }
        if late && !lost && !self.leaving {
            tracing::warn!("a partition is handed over before everything of it was settled");
        }
        let Some(handover) = self.handover.take() else {
            return;
        };
        self.settle_up(&handover.sources, !lost);
        self.owned
            .retain(|owned| !handover.sources.contains(&owned.records.source));
        self.report_failed(unassign(&self.consumer, &handover.partitions));
    }

    /// Commits what is settled of some partitions, if they are still ours, and makes later
    /// settlements stale. What was settled in between is committed too.
    fn settle_up(&mut self, sources: &[u32], ours: bool) {
        let deadline = Instant::now() + self.plan.config.operation_deadline;
        let mut committing = ours;
        loop {
            if committing {
                let of = |owned: &Owned| sources.contains(&owned.records.source);
                if let Err(code) = self.commit_all(deadline, of) {
                    tracing::warn!(%code, "positions could not be committed before a handover");
                    committing = false;
                }
            }
            if self.disown(sources, committing) {
                return;
            }
        }
    }

    /// Ends the ownership of partitions; unless it is to be `lossless` and something settled is
    /// not on the server.
    fn disown(&mut self, sources: &[u32], lossless: bool) -> bool {
        let of = |owned: &&Owned| sources.contains(&owned.records.source);
        let owned: Vec<&Owned> = self.owned.iter().filter(of).collect();
        let committed: Vec<_> = owned
            .iter()
            .map(|owned| (owned.records.source, self.committed(owned)))
            .collect();
        let Some(positions) = self.plan.shared.disown(&committed, lossless) else {
            return false;
        };
        for ((owned, done), (_, committed)) in owned.iter().zip(positions).zip(committed) {
            if let (Some(committed), Some(done)) = (committed, done)
                && committed < done
                && let (Ok(committed), Ok(done)) = (i64::try_from(committed), i64::try_from(done))
            {
                let topic = owned.records.topic.name().to_owned();
                let partition = (topic, owned.records.partition);
                let unwritten = Unwritten { committed, done };
                self.unwritten.insert(partition, unwritten);
            }
        }
        true
    }

    /// Leaves the group: commits, hands back the partitions, and waits until the group knows.
    pub(super) fn leave(&mut self, deadline: Instant) -> Result<(), RDKafkaErrorCode> {
        self.leaving = true;
        let result = self.commit_to_leave(deadline);
        self.consumer.context().leave();
        if let Some(handover) = self.handover.take() {
            self.report_failed(unassign(&self.consumer, &handover.partitions));
        }
        while let Some(rebalance) = self.consumer.context().next_rebalance() {
            self.report_failed(match rebalance {
                Rebalance::Assign(partitions) => assign(&self.consumer, &partitions),
                Rebalance::Revoke(partitions) => unassign(&self.consumer, &partitions),
            });
        }
        self.owned.clear();
        if let Err(error) = self.consumer.close_queue() {
            tracing::debug!(%error, "the client is taken down without leaving the group");
            return result;
        }
        while !self.consumer.closed() && Instant::now() < deadline {
            self.consumer.poll(super::member::LEAVING_POLL);
        }
        result
    }

    /// Commits everything that is settled. If the group has lost sight of this member it is
    /// joined again for that.
    fn commit_to_leave(&mut self, deadline: Instant) -> Result<(), RDKafkaErrorCode> {
        loop {
            let sources: Vec<u32> = self.owned.iter().map(|o| o.records.source).collect();
            self.plan.shared.revoke(&sources);
            match self.commit_all(deadline, |_| true) {
                Ok(()) if !self.disown(&sources, true) => {}
                Ok(()) if self.unwritten.is_empty() => return Ok(()),
                Err(code) if !is_stale(code) || Instant::now() >= deadline => {
                    self.disown(&sources, false);
                    return Err(code);
                }
                Ok(()) | Err(_) => self.rejoin(deadline)?,
            }
        }
    }

    /// Waits until the group gives this member partitions, after it took them all. What is
    /// unwritten of them is written then; what another member has got comes to that one again.
    fn rejoin(&mut self, deadline: Instant) -> Result<(), RDKafkaErrorCode> {
        let shares = self.shares;
        self.repeated = false;
        while self.shares == shares {
            if Instant::now() >= deadline || self.failure.is_some() {
                return Err(RDKafkaErrorCode::UnknownMemberId);
            }
            self.serve();
            thread::park_timeout(super::member::LEAVING_POLL);
        }
        match self.repeated {
            true => Err(RDKafkaErrorCode::AssignmentLost),
            false => Ok(()),
        }
    }

    fn report_failed(&self, answered: KafkaResult<()>) {
        if let Err(error) = answered {
            tracing::warn!(%error, "the client did not take the answer to a rebalance");
        }
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<Partition> {
    list.elements()
        .iter()
        .map(|element| (element.topic().to_owned(), element.partition()))
        .collect()
}
