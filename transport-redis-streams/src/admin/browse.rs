//! Reading a stream without a group, and deleting what it holds.

use polybus_core::transport::{AckToken, Delivery, Position};
use polybus_core::{Error, Result, Topic};

use super::RedisAdmin;
use crate::client::Cmd;
use crate::member::{Arrival, delivery};
use crate::partition;
use crate::reply::{self, EntryId};

/// Settles nothing: no subscriber has so many streams.
const NO_TOKEN: AckToken = AckToken::new(u32::MAX, 0, [0, 0]);

impl RedisAdmin {
    pub(super) async fn read(
        &self,
        topic: &Topic,
        after: &[Position],
        max: usize,
    ) -> Result<Vec<Delivery>> {
        let mut deliveries = Vec::new();
        for (partition, stream) in (0..).zip(partition::streams(topic)) {
            let after = of_partition(after, partition);
            let missing = max.max(1) - deliveries.len();
            let found = self.read_stream(topic, partition, &stream, after, missing);
            deliveries.extend(found.await?);
            if deliveries.len() >= max.max(1) {
                break;
            }
        }
        Ok(deliveries)
    }

    async fn read_stream(
        &self,
        topic: &Topic,
        partition: u32,
        stream: &Topic,
        after: Option<Position>,
        max: usize,
    ) -> Result<Vec<Delivery>> {
        const OPERATION: &str = "browse";
        let start = after.map_or_else(|| "-".to_owned(), |last| format!("({}", id(last)));
        let mut command = Cmd::new();
        command.arg("XRANGE").arg(stream.name()).arg(start).arg("+");
        command.arg("COUNT").arg(max);
        let located = |error: Error| error.with_topic(topic.name());
        let reply = self
            .call(stream.name(), &command, OPERATION, self.deadline())
            .await;
        let entries = reply::array(reply.map_err(located)?);
        let entries = entries.ok_or_else(|| self.malformed(OPERATION))?;
        let transport = &self.link.client().origin().transport;
        let deliveries = entries.into_iter().filter_map(reply::entry).map(|found| {
            let Arrival { id, read, .. } = Arrival::of(found, None);
            delivery(
                read,
                NO_TOKEN,
                topic.clone(),
                id.position(partition),
                transport,
            )
        });
        Ok(deliveries.collect())
    }

    /// Deletes everything up to and with a position.
    pub(super) async fn delete(&self, topic: &Topic, through: &[Position]) -> Result<()> {
        for (partition, stream) in (0..).zip(partition::streams(topic)) {
            if let Some(last) = of_partition(through, partition) {
                let trimmed = self.trim(&stream, last).await;
                trimmed.map_err(|error| error.with_topic(topic.name()))?;
            }
        }
        Ok(())
    }

    async fn trim(&self, stream: &Topic, last: Position) -> Result<()> {
        let last = id(last);
        let next = match last.sequence.checked_add(1) {
            Some(sequence) => EntryId::new(last.milliseconds, sequence),
            None => EntryId::new(last.milliseconds.saturating_add(1), 0),
        };
        let mut command = Cmd::new();
        command.arg("XTRIM").arg(stream.name());
        command.arg("MINID").arg("=").arg(next.to_string());
        let trimmed = self
            .call(stream.name(), &command, "purge", self.deadline())
            .await;
        trimmed.map(drop)
    }
}

/// The position that stands in a partition, if one does.
fn of_partition(positions: &[Position], partition: u32) -> Option<Position> {
    let mut positions = positions.iter().copied();
    positions.find(|position| position.partition() == partition)
}

fn id(position: Position) -> EntryId {
    EntryId::new(position.offset(), position.sequence().unwrap_or(0))
}
