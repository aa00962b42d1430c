//! Reading: from the client's queues into the subscriber's.

use std::collections::VecDeque;
use std::time::Instant;

use polybus_core::transport::AckToken;
use polybus_core::{ErrorKind, Topic};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;

use super::member::{LONGEST_SLEEP, Member};
use super::packed::{Packed, Packer};
use super::queue::{BATCH, Place, Record, Tap};
use super::shared::Room;
use crate::client::TOPIC_APPEARS_WITHIN;
use crate::error::code_of;

/// A partition that is this member's.
pub(super) struct Owned {
    pub(super) tap: Tap,
    pub(super) records: Records,
    /// What has come, and may not be delivered before something of the partition is settled. Not
    /// more than the client had read ahead: the tap is closed meanwhile.
    pub(super) waiting: VecDeque<Packed>,
    /// Something of it may be delivered, for all that was known when the last read began.
    pub(super) may_read: bool,
    /// The position that the server has of it, as far as this member has written it.
    pub(super) committed: Option<u64>,
    /// An error has come in place of a record, and no record since. For the client its place is
    /// consumed, whatever may still come from there.
    pub(super) failed: bool,
}

impl Owned {
    fn is(&self, record: Record<'_>) -> bool {
        self.records.partition == record.partition()
            && record.is_of_topic(self.records.topic.name())
    }
}

/// Takes the records of a partition over from the client.
pub(super) struct Records {
    pub(super) topic: Topic,
    pub(super) partition: i32,
    pub(super) source: u32,
    pub(super) epoch: u32,
    /// The offset that the next record has at least.
    pub(super) next: i64,
}

impl Records {
    /// A record, packed; `None` if it came before. The client repeats records where a rebalance
    /// pauses the partition at the wrong moment.
    fn pack(&mut self, record: Record<'_>, packer: &mut Packer) -> Option<Packed> {
        let offset = record.offset();
        if offset < self.next {
            tracing::debug!(
                topic = self.topic.name(),
                partition = self.partition,
                offset,
                "a record came twice and is passed over"
            );
            return None;
        }
        self.next = offset + 1;
        let token = AckToken::new(self.source, self.epoch, [offset.unsigned_abs(), 0]);
        Some(packer.pack(record, token))
    }
}

impl Member {
    /// Reads a batch if there is room. Returns whether there was anything, and may be more.
    pub(super) fn read(&mut self) -> bool {
        self.look_again_if_due();
        let mut room = self.plan.shared.room();
        self.go_on_with_waiting(&mut room);
        let (read_some, error) = self.read_batch(&mut room);
        if let Some(code) = error {
            self.fail(&KafkaError::MessageConsumption(code));
        }
        if read_some {
            self.brokers_away = false;
            self.missing_since = None;
        }
        let is_to_go_on = read_some || error.is_some() || !self.batch.is_empty();
        self.plan.shared.push(&mut self.batch);
        is_to_go_on
    }

    /// Takes what has waited of partitions that may be read on, and then lets them flow again.
    fn go_on_with_waiting(&mut self, room: &mut Room) {
        for owned in &mut self.owned {
            owned.may_read = self.plan.shared.may_read(owned.records.source);
            if !owned.may_read {
                continue;
            }
            for _ in 0..BATCH {
                if room.is_none() {
                    return;
                }
                let Some(packed) = owned.waiting.pop_front() else {
                    break;
                };
                room.take(&packed);
                self.batch.push(packed);
            }
            if owned.waiting.is_empty() && !owned.tap.is_open() {
                self.queue.open(&mut owned.tap);
                self.queue.look_again();
            }
        }
    }

    /// Reads what one call of the client gives, or an earlier one has left. Returns whether there was
    /// anything, and the error that stood in place of a record.
    fn read_batch(&mut self, room: &mut Room) -> (bool, Option<RDKafkaErrorCode>) {
        let Self {
            queue,
            owned,
            packer,
            batch,
            ..
        } = self;
        let mut read_some = false;
        // Records come in runs of one partition. The client's handle of a topic is that of no
        // other one as long as a partition of it is ours.
        let mut run: Option<(Place, usize)> = None;
        for _ in 0..BATCH {
            if room.is_none() {
                break;
            }
            let Some(record) = queue.next() else {
                break;
            };
            let place = record.place();
            let known = run.filter(|(of, _)| *of == place).map(|(_, index)| index);
            let index = known.or_else(|| owned.iter().position(|owned| owned.is(record)));
            let error = record.error();
            let Some(index) = index else {
                if error.is_some() && record.is_of_no_topic() {
                    return (read_some, error);
                }
                // Of a partition that is not ours any more.
                read_some = true;
                continue;
            };
            run = Some((place, index));
            let owned = &mut owned[index];
            owned.failed = error.is_some();
            if error.is_some() {
                return (read_some, error);
            }
            read_some = true;
            let Some(packed) = owned.records.pack(record, packer) else {
                continue;
            };
            if owned.may_read && owned.waiting.is_empty() {
                room.take(&packed);
                batch.push(packed);
            } else {
                if owned.tap.is_open() {
                    owned.tap.close();
                }
                owned.waiting.push_back(packed);
            }
        }
        (read_some, None)
    }

    /// Looks into the queue now and then, whatever the client said of it, and opens what is to be
    /// open: this bounds what a lost wake-up could cost, and one way that the client closed late.
    fn look_again_if_due(&mut self) {
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + LONGEST_SLEEP;
            let taps = self.owned.iter_mut().map(|owned| &mut owned.tap);
            taps.filter(|tap| tap.is_open())
                .for_each(|tap| self.queue.open(tap));
            self.queue.look_again();
        }
    }

    /// Takes a record that came through the main queue, where none is expected.
    pub(super) fn take(&mut self, message: &BorrowedMessage<'_>) {
        let record = Record::of(message);
        let Some(owned) = self.owned.iter_mut().find(|owned| owned.is(record)) else {
            return;
        };
        let packed = owned.records.pack(record, &mut self.packer);
        match owned.waiting.is_empty() {
            true => self.batch.extend(packed),
            false => owned.waiting.extend(packed),
        }
    }

    /// What follows from an error of the client: mostly nothing, since it goes on by itself.
    pub(super) fn fail(&mut self, error: &KafkaError) {
        let origin = &self.plan.origin;
        if let KafkaError::MessageConsumptionFatal(code) = error {
            let error = origin.code("recv", *code).with_retryable(false);
            self.failure = Some(error.with_note("subscribe again"));
            return;
        }
        let Some(code) = code_of(error) else {
            return;
        };
        let error = origin.code("recv", code);
        match (code, error.kind()) {
            (RDKafkaErrorCode::PartitionEOF, _) => {}
            (RDKafkaErrorCode::AllBrokersDown, _) => {
                // Once for each time that they are away.
                if !std::mem::replace(&mut self.brokers_away, true) {
                    self.plan.shared.report(error);
                }
            }
            (_, ErrorKind::Unauthorized) => self.failure = Some(error),
            // One broker of several, one attempt of several: the client tries on.
            (_, ErrorKind::Connect | ErrorKind::Timeout | ErrorKind::Stale) => {
                tracing::debug!(%error, "the client goes on by itself");
            }
            // A topic that was made just now is not known everywhere yet. One that was deleted
            // may be made again; the member stays in its group.
            (_, ErrorKind::TopicNotFound) if !self.stays_missing() => {}
            _ => self.plan.shared.report(error.with_retryable(true)),
        }
    }

    fn stays_missing(&mut self) -> bool {
        let since = *self.missing_since.get_or_insert_with(Instant::now);
        since.elapsed() > TOPIC_APPEARS_WITHIN
    }
}
