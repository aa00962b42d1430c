//! What the client tells a member: rebalances, errors, log lines.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;

use crate::client;

/// Keeps what the client tells until the member's thread, which polled it, takes it up.
#[derive(Default)]
pub(super) struct Events {
    rebalances: Mutex<VecDeque<Rebalance>>,
    told: AtomicU64,
    leaving: AtomicBool,
}

/// The group shares out the partitions anew. The group waits until the member has answered with
/// an assign or unassign.
pub(super) enum Rebalance {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
}

impl Events {
    /// How often the client has told something.
    pub(super) fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// From now on rebalances are answered at once, keeping nothing.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        locked(&self.rebalances).pop_front()
    }

    fn count(&self) {
        self.told.fetch_add(1, Ordering::Relaxed);
    }
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.count();
        client::log(level, facility, line);
    }

    fn stats_raw(&self, _: &[u8]) {
        self.count();
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.count();
        client::log_error(&error, reason);
    }
}

impl ConsumerContext for Events {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        self.count();
        let revoke = kind != RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.leaving.load(Ordering::Relaxed) {
            // What there was is settled. What comes is taken on, as the group wants to hear, and
            // given up a moment later, unread.
            let answered = match revoke {
                true => unassign(consumer, partitions),
                false => assign(consumer, partitions),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "a rebalance while leaving");
            }
            return;
        }
        let partitions = partitions.clone();
        locked(&self.rebalances).push_back(match revoke {
            true => Rebalance::Revoke(partitions),
            false => Rebalance::Assign(partitions),
        });
    }
}

/// Takes partitions on, as the group's protocol has it.
pub(super) fn assign(
    consumer: &BaseConsumer<Events>,
    partitions: &TopicPartitionList,
) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(partitions),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(partitions),
    }
}

/// Gives partitions up, as the group's protocol has it.
pub(super) fn unassign(
    consumer: &BaseConsumer<Events>,
    partitions: &TopicPartitionList,
) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("nothing panics while it holds this lock")
}
