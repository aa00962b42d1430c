//! Reading: from the client's queues into the subscriber's.

use std::time::{Duration, Instant};

use polybus_core::transport::{AckToken, Delivery};
use polybus_core::{ErrorKind, Topic};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};

use super::context::Events;
use super::decode;
use super::member::Member;
use crate::client::TOPIC_APPEARS_WITHIN;
use crate::error::{Origin, code_of};

/// How many records of one partition are taken in a row while others may have some too.
const TURN: usize = 500;

/// A partition that is this member's.
pub(super) struct Owned {
    pub(super) queue: PartitionQueue<Events>,
    pub(super) records: Records,
    /// The position that the server has of it, as far as this member has written it.
    pub(super) committed: Option<u64>,
}

/// Makes deliveries of the records of a partition.
pub(super) struct Records {
    pub(super) topic: Topic,
    pub(super) partition: i32,
    pub(super) source: u32,
    pub(super) epoch: u32,
    /// The offset that the next record has at least.
    pub(super) next: i64,
}

impl Records {
    /// The delivery for a record; `None` if it came before. The client repeats records where a
    /// rebalance pauses the partition at the wrong moment.
    fn delivery(&mut self, message: &BorrowedMessage<'_>, origin: &Origin) -> Option<Delivery> {
        if message.offset() < self.next {
            tracing::debug!(
                topic = self.topic.name(),
                partition = self.partition,
                offset = message.offset(),
                "a record came twice and is passed over"
            );
            return None;
        }
        self.next = message.offset() + 1;
        let id = [message.offset().unsigned_abs(), 0];
        let token = AckToken::new(self.source, self.epoch, id);
        Some(decode::delivery(message, &self.topic, token, origin))
    }
}

impl Member {
    /// Reads from the partitions while there is room, each in its turn. Returns whether there
    /// was anything.
    pub(super) fn read(&mut self) -> bool {
        let mut room = self.plan.shared.room();
        let mut read_some = false;
        for turn in 0..self.owned.len() {
            let index = (self.first_turn + turn) % self.owned.len();
            if room.events == 0 || room.bytes == 0 {
                break;
            }
            let Owned { queue, records, .. } = &mut self.owned[index];
            if !self.plan.shared.may_read(records.source) {
                continue;
            }
            let mut error = None;
            for _ in 0..TURN.min(room.events) {
                match queue.poll(Duration::ZERO) {
                    Some(Ok(message)) => {
                        read_some = true;
                        if let Some(delivery) = records.delivery(&message, &self.plan.origin) {
                            room.events -= 1;
                            room.bytes = room.bytes.saturating_sub(delivery.size() as u64);
                            self.batch.push(delivery);
                        }
                        if room.bytes == 0 {
                            break;
                        }
                    }
                    Some(Err(found)) => {
                        error = Some(found);
                        break;
                    }
                    None => break,
                }
            }
            if let Some(error) = error {
                self.fail(&error);
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

    /// Takes a record that came through the main queue, where none is expected.
    pub(super) fn take(&mut self, message: &BorrowedMessage<'_>) {
        let owner = self.owned.iter_mut().find(|owned| {
            owned.records.partition == message.partition()
                && owned.records.topic.name() == message.topic()
        });
        let delivery = owner.and_then(|o| o.records.delivery(message, &self.plan.origin));
        self.batch.extend(delivery);
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
