mod browse;
mod reset;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use polybus_core::event::EventId;
use polybus_core::transport::{Admin, Delivery, Lag, Position, Start, TopicDescription, TopicSpec};
use polybus_core::{Error, ErrorKind, Result, Topic};
use tokio::time::Instant;

use crate::client::{Cmd, Value};
use crate::connection::Link;
use crate::{reply, scripts};

/// Manages streams: a stream is a topic of one partition.
#[derive(Clone)]
pub struct RedisAdmin {
    link: Arc<Link>,
    operation_deadline: Duration,
}

impl RedisAdmin {
    pub(crate) fn new(link: Arc<Link>, operation_deadline: Duration) -> Self {
        Self {
            link,
            operation_deadline,
        }
    }

    async fn call(
        &self,
        stream: &str,
        command: &Cmd,
        operation: &'static str,
        deadline: Instant,
    ) -> Result<Value> {
        self.link
            .call_of(stream, command, operation, deadline)
            .await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.operation_deadline
    }

    fn malformed(&self, operation: &'static str) -> Error {
        self.link.client().origin().malformed(operation)
    }

    /// Whether a stream exists. A key that holds something else is an error.
    async fn exists(
        &self,
        stream: &str,
        operation: &'static str,
        deadline: Instant,
    ) -> Result<bool> {
        let mut command = Cmd::new();
        command.arg("TYPE").arg(stream);
        let kind = self.call(stream, &command, operation, deadline).await?;
        match reply::text(&kind).as_deref() {
            Some("none") => Ok(false),
            Some("stream") => Ok(true),
            Some(other) => {
                let origin = self.link.client().origin();
                let error = origin.plain(
                    ErrorKind::Transport,
                    format!("the key of this name holds a {other}, and no stream"),
                );
                Err(error
                    .with_retryable(false)
                    .with_operation(operation)
                    .with_topic(stream))
            }
            None => Err(self.malformed(operation)),
        }
    }

    /// Makes an empty stream: by a group that is removed in the same step.
    async fn create(&self, stream: &str, deadline: Instant) -> Result<()> {
        let group = format!("polybus-create-{}", EventId::generate());
        let command = scripts::call(scripts::CREATE, stream, &[&group]);
        let created = self.call(stream, &command, "create topic", deadline).await;
        created.map(drop).map_err(|error| error.with_topic(stream))
    }

    async fn lag_of(&self, group: &str, stream: &str, deadline: Instant) -> Result<Lag> {
        let mut command = Cmd::new();
        command.arg("XINFO").arg("GROUPS").arg(stream);
        let groups = self.call(stream, &command, "lag", deadline).await?;
        let groups = reply::array(groups).ok_or_else(|| self.malformed("lag"))?;
        let named = |info: &&Value| {
            reply::field(info, "name").and_then(reply::bytes) == Some(group.as_bytes())
        };
        let Some(info) = groups.iter().find(named) else {
            // A group that never came has everything before it.
            return Ok(Lag::new(self.count(stream, "lag", deadline).await?, 0));
        };
        let number = |name| reply::field(info, name).and_then(reply::number);
        let pending = number("pending").ok_or_else(|| self.malformed("lag"))?;
        if let Some(waiting) = number("lag") {
            return Ok(Lag::new(waiting, pending));
        }
        // The server does not know where entries were deleted, or where the group started
        // between two.
        let last = reply::field(info, "last-delivered-id").and_then(reply::text);
        let last = last.ok_or_else(|| self.malformed("lag"))?;
        Ok(Lag::new(
            self.count_after(stream, last, deadline).await?,
            pending,
        ))
    }

    async fn count(&self, stream: &str, operation: &'static str, deadline: Instant) -> Result<u64> {
        let mut command = Cmd::new();
        command.arg("XLEN").arg(stream);
        let count = self.call(stream, &command, operation, deadline).await?;
        reply::number(&count).ok_or_else(|| self.malformed(operation))
    }

    async fn count_after(&self, stream: &str, mut last: String, deadline: Instant) -> Result<u64> {
        let mut total = 0;
        loop {
            let command = scripts::call(scripts::COUNT_AFTER, stream, &[&last]);
            let page = self.call(stream, &command, "lag", deadline).await?;
            let page = reply::array(page).and_then(|page| <[Value; 2]>::try_from(page).ok());
            let [count, id] = page.ok_or_else(|| self.malformed("lag"))?;
            let count = reply::number(&count).ok_or_else(|| self.malformed("lag"))?;
            if count == 0 {
                return Ok(total);
            }
            total += count;
            last = reply::text(&id).ok_or_else(|| self.malformed("lag"))?;
        }
    }
}

impl Admin for RedisAdmin {
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<()> {
        let deadline = self.deadline();
        for topic in topics {
            if !self.exists(&topic.name, "create topic", deadline).await? {
                self.create(&topic.name, deadline).await?;
            }
        }
        Ok(())
    }

    async fn describe(&self, topics: &[Topic]) -> Result<Vec<Option<TopicDescription>>> {
        let deadline = self.deadline();
        let mut found = Vec::with_capacity(topics.len());
        for topic in topics {
            let name = topic.name();
            found.push(match self.exists(name, "describe", deadline).await? {
                true => {
                    let events = self.count(name, "describe", deadline).await?;
                    Some(TopicDescription::new(name, 1, events))
                }
                false => None,
            });
        }
        Ok(found)
    }

    async fn lag(&self, group: &str, topics: &[Topic]) -> Result<Vec<Lag>> {
        let deadline = self.deadline();
        let mut lags = Vec::with_capacity(topics.len());
        for topic in topics {
            let lag = self.lag_of(group, topic.name(), deadline).await;
            lags.push(lag.map_err(|error| error.with_topic(topic.name()))?);
        }
        Ok(lags)
    }

    async fn reset(&self, group: &str, topics: &[Topic], to: Start) -> Result<()> {
        self.move_group(group, topics, to).await
    }

    async fn health(&self) -> Result<()> {
        let mut command = Cmd::new();
        command.arg("PING");
        let deadline = self.deadline();
        let origin = self.link.client().origin();
        let servers = self.link.everywhere(deadline).await;
        for server in servers.map_err(|error| error.with_operation("health"))? {
            let answer = server.call(&command, deadline).await;
            answer.map_err(|failure| origin.error(failure, "health"))?;
        }
        Ok(())
    }

    async fn browse(&self, topic: &Topic, after: &[Position], max: usize) -> Result<Vec<Delivery>> {
        self.read(topic, after, max).await
    }

    async fn purge(&self, topic: &Topic, through: &[Position]) -> Result<()> {
        self.delete(topic, through).await
    }
}

impl fmt::Debug for RedisAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisAdmin")
            .field("server", self.link.client().origin())
            .finish_non_exhaustive()
    }
}
