//! Reading: from the client's queues into the subscriber's.

use std::time::Instant;

use polybus_core::transport::AckToken;
use polybus_core::{ErrorKind, Topic};
use rdkafka::Message;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;

use super::member::{LONGEST_SLEEP, Member};
use super::packed::{Packed, Packer};
use super::queue::{Queue, Record};
use super::shared::Room;
use crate::client::TOPIC_APPEARS_WITHIN;
use crate::error::code_of;

/// How many records of one partition are taken in a row while others may have some too.
const TURN: usize = 500;

/// A partition that is this member's.
pub(super) struct Owned {
    pub(super) queue: Queue,
    pub(super) records: Records,
    /// The position that the server has of it, as far as this member has written it.
    pub(super) committed: Option<u64>,
    /// An error has come in place of a record, and no record since. For the client its place is
    /// consumed, whatever may still come from there.
    pub(super) failed: bool,
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
    /// Reads from the partitions while there is room, each in its turn. Returns whether there
    /// was anything.
    pub(super) fn read(&mut self) -> bool {
        self.look_again_if_due();
        let mut room = self.plan.shared.room();
        let mut read_some = false;
        for turn in 0..self.owned.len() {
            if room.events == 0 || room.bytes == 0 {
                break;
            }
            let index = (self.first_turn + turn) % self.owned.len();
            let source = self.owned[index].records.source;
            if self.plan.shared.may_read(source) {
                read_some |= self.read_partition(index, &mut room);
            }
        }
        self.first_turn = self.first_turn.wrapping_add(1);
        if read_some {
            self.brokers_away = false;
            self.missing_since = None;
        }
        self.plan.shared.push(&mut self.batch);
        read_some
    }

    /// Reads a turn of one partition. Returns whether there was anything.
    fn read_partition(&mut self, index: usize, room: &mut Room) -> bool {
        let Owned {
            queue,
            records,
            failed,
            ..
        } = &mut self.owned[index];
        let mut read_some = false;
        let mut error = None;
        for _ in 0..TURN.min(room.events) {
            let Some(record) = queue.next() else {
                break;
            };
            error = record.error();
            *failed = error.is_some();
            if *failed {
                break;
            }
            read_some = true;
            if let Some(packed) = records.pack(record, &mut self.packer) {
                room.events -= 1;
                room.bytes = room.bytes.saturating_sub(packed.size());
                self.batch.push(packed);
            }
            if room.bytes == 0 {
                break;
            }
        }
        if let Some(code) = error {
            self.fail(&KafkaError::MessageConsumption(code));
        }
        read_some
    }

    /// Looks into every queue now and then, whatever the client said of it: this bounds what a
    /// lost wake-up could cost.
    fn look_again_if_due(&mut self) {
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + LONGEST_SLEEP;
            self.owned.iter().for_each(|owned| owned.queue.look_again());
        }
    }

    /// Takes a record that came through the main queue, where none is expected.
    pub(super) fn take(&mut self, message: &BorrowedMessage<'_>) {
        let owner = self.owned.iter_mut().find(|owned| {
            owned.records.partition == message.partition()
                && owned.records.topic.name() == message.topic()
        });
        let record = Record::of(message);
        let packed = owner.and_then(|owner| owner.records.pack(record, &mut self.packer));
        self.batch.extend(packed);
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
