//! Reading a stream without a group, and deleting what it holds.

use polybus_core::transport::{AckToken, Delivery, Position};
use polybus_core::{Error, Result, Topic};

use super::RedisAdmin;
use crate::client::Cmd;
use crate::member::{Arrival, delivery};
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
        const OPERATION: &str = "browse";
        let start = after
            .first()
            .map_or_else(|| "-".to_owned(), |last| format!("({}", id(*last)));
        let mut command = Cmd::new();
        command.arg("XRANGE").arg(topic.name()).arg(start).arg("+");
        command.arg("COUNT").arg(max.max(1));
        let located = |error: Error| error.with_topic(topic.name());
        let reply = self
            .call(topic.name(), &command, OPERATION, self.deadline())
            .await;
        let entries = reply::array(reply.map_err(located)?);
        let entries = entries.ok_or_else(|| self.malformed(OPERATION))?;
        let transport = &self.link.client().origin().transport;
        let deliveries = entries.into_iter().filter_map(reply::entry).map(|found| {
            let Arrival { id, read, .. } = Arrival::of(found, None);
            delivery(read, NO_TOKEN, topic.clone(), id.position(), transport)
        });
        Ok(deliveries.collect())
    }

    /// Deletes everything up to and with a position.
    pub(super) async fn delete(&self, topic: &Topic, through: &[Position]) -> Result<()> {
        let Some(last) = through.first() else {
            return Ok(());
        };
        let last = id(*last);
        let next = match last.sequence.checked_add(1) {
            Some(sequence) => EntryId::new(last.milliseconds, sequence),
            None => EntryId::new(last.milliseconds.saturating_add(1), 0),
        };
        let mut command = Cmd::new();
        command.arg("XTRIM").arg(topic.name());
        command.arg("MINID").arg("=").arg(next.to_string());
        let trimmed = self
            .call(topic.name(), &command, "purge", self.deadline())
            .await;
        trimmed
            .map(drop)
            .map_err(|error| error.with_topic(topic.name()))
    }
}

fn id(position: Position) -> EntryId {
    EntryId::new(position.offset(), position.sequence().unwrap_or(0))
}
