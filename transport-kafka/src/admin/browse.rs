//! Reading a topic without a group, and deleting what it holds.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use polybus_core::transport::{AckToken, Delivery, Position};
use polybus_core::{Error, Result, Topic};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{FromClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::timeout_at;

use super::{KafkaAdmin, all_of};
use crate::asking::OffThread;
use crate::client;
use crate::subscriber::{Packer, decode};

/// Settles nothing: no subscriber has so many partitions.
const fn no_token(offset: u64) -> AckToken {
    AckToken::new(u32::MAX, 0, [offset, 0])
}

const BROWSE: &str = "browse";
const PURGE: &str = "purge";

impl KafkaAdmin {
    pub(super) async fn read(
        &self,
        topic: &Topic,
        after: &[Position],
        max: usize,
    ) -> Result<Vec<Delivery>> {
        let (name, after) = (topic.clone(), after.to_vec());
        let read = self.ask(BROWSE, move |own, within| {
            own.read_until(&name, &after, max.max(1), within)
                .map_err(|error| (Some(name.name().to_owned()), error))
        });
        match read.await? {
            Some(deliveries) => Ok(deliveries),
            None => Err(self.late(BROWSE).with_topic(topic.name())),
        }
    }

    /// Reads until there is enough, or every partition is at its end; `None` if that takes too
    /// long.
    fn read_until(
        &self,
        topic: &Topic,
        after: &[Position],
        max: usize,
        within: Duration,
    ) -> KafkaResult<Option<Vec<Delivery>>> {
        let deadline = Instant::now() + within;
        let left = || deadline.saturating_duration_since(Instant::now());
        let Some(count) = self.asking.partitions(topic.name(), left())? else {
            return Ok(Some(Vec::new()));
        };
        // The client wants the name of a group, which it never asks for.
        let mut settings = client::reading(&self.config, &self.client_id, "polybus.browse");
        settings
            .set_log_level(RDKafkaLogLevel::Emerg)
            .set("enable.partition.eof", "true");
        let consumer = OffThread::new(BaseConsumer::from_config(&settings)?);
        let mut list = TopicPartitionList::with_capacity(count.unsigned_abs() as usize);
        for (name, partition) in all_of(topic.name(), count) {
            let known = after
                .iter()
                .find(|it| it.partition() == partition.unsigned_abs());
            let next = known.and_then(|it| i64::try_from(it.offset() + 1).ok());
            let offset = next.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(&name, partition, offset)?;
        }
        consumer.assign(&list)?;
        let mut at_end: HashSet<i32> = HashSet::new();
        let (mut found, mut packer) = (Vec::new(), Packer::default());
        while found.len() < max && at_end.len() < count.unsigned_abs() as usize {
            if left().is_zero() {
                return Ok(None);
            }
            match consumer.poll(Duration::from_millis(100).min(left())) {
                Some(Ok(message)) => {
                    at_end.remove(&message.partition());
                    let token = no_token(message.offset().unsigned_abs());
                    let record = packer.pack_message(&message, token);
                    found.push(decode::delivery(&record, topic.clone(), &self.origin));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(at_end.insert(partition)),
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                    return Err(KafkaError::MessageConsumptionFatal(code));
                }
                // Others pass, or the time does.
                Some(Err(error)) => tracing::debug!(%error, "the client goes on by itself"),
                None => {}
            }
        }
        Ok(Some(found))
    }

    /// Deletes everything up to and with positions.
    pub(super) async fn delete(&self, topic: &Topic, through: &[Position]) -> Result<()> {
        if through.is_empty() {
            return Ok(());
        }
        let located = |error: Error| error.with_topic(topic.name());
        let failed = |error| located(self.origin.client(PURGE, error));
        let mut settings = client::asking(&self.config, &self.client_id);
        settings.set_log_level(RDKafkaLogLevel::Emerg);
        let client = AdminClient::<DefaultClientContext>::from_config(&settings);
        let client = OffThread::new(client.map_err(failed)?);
        let mut list = TopicPartitionList::with_capacity(through.len());
        for last in through {
            let next = i64::try_from(last.offset() + 1).unwrap_or(i64::MAX);
            let partition = last.partition().cast_signed();
            list.add_partition_offset(topic.name(), partition, Offset::Offset(next))
                .map_err(failed)?;
        }
        let within = self.config.operation_deadline;
        let options = AdminOptions::new()
            .request_timeout(Some(within))
            .operation_timeout(Some(within));
        let deadline = tokio::time::Instant::now() + within;
        let deleted = timeout_at(deadline, client.delete_records(&list, &options)).await;
        let deleted = deleted.map_err(|_| located(self.late(PURGE)))?;
        for element in deleted.map_err(failed)?.elements() {
            element.error().map_err(failed)?;
        }
        Ok(())
    }
}
