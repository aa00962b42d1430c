mod browse;
mod manage;
mod reset;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use polybus_core::event::EventId;
use polybus_core::topic::TopicSetting;
use polybus_core::transport::{Admin, Delivery, Lag, Position, Start, TopicDescription, TopicSpec};
use polybus_core::{Error, ErrorKind, Result, Text, Topic};
use tokio::time::Instant;

use crate::client::{Cmd, Value};
use crate::connection::Link;
use crate::writing::Declared;
use crate::{partition, reply, scripts};

/// Of how many unread entries a lag is counted one by one.
const COUNTED: u64 = 10_000;

/// Manages streams: a stream is a topic of one partition, or a partition of a topic.
#[derive(Clone)]
pub struct RedisAdmin {
    link: Arc<Link>,
    operation_deadline: Duration,
    /// What the config declares of streams: the server keeps no settings.
    declared: Arc<Declared>,
}

impl RedisAdmin {
    pub(crate) fn new(
        link: Arc<Link>,
        operation_deadline: Duration,
        declared: Arc<Declared>,
    ) -> Self {
        Self {
            link,
            operation_deadline,
            declared,
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
        let last = reply::field(info, "last-delivered-id").and_then(reply::text);
        let last = last.ok_or_else(|| self.malformed("lag"))?;
        let known = number("lag");
        let waiting = self.count_after(stream, last, known, deadline).await?;
        Ok(Lag::new(waiting, pending))
    }

    async fn count(&self, stream: &str, operation: &'static str, deadline: Instant) -> Result<u64> {
        let mut command = Cmd::new();
        command.arg("XLEN").arg(stream);
        let count = self.call(stream, &command, operation, deadline).await?;
        reply::number(&count).ok_or_else(|| self.malformed(operation))
    }

    /// Counts the entries after one. Beyond some thousands what the server says is good enough. It
    /// does not know where entries were deleted or where the group started between two, and after a
    /// restart it may take entries for unread that were read since its log was rewritten.
    async fn count_after(
        &self,
        stream: &str,
        mut last: String,
        known: Option<u64>,
        deadline: Instant,
    ) -> Result<u64> {
        let mut total = 0;
        loop {
            if let Some(known) = known
                && total >= COUNTED
            {
                return Ok(known.max(total));
            }
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
            for stream in partition::streams(&named(topic)) {
                let name = stream.name();
                if !self.exists(name, "create topic", deadline).await? {
                    self.create(name, deadline).await?;
                    self.make_groups(name, &topic.groups, deadline).await?;
                }
            }
        }
        Ok(())
    }

    async fn describe(&self, topics: &[Topic]) -> Result<Vec<Option<TopicDescription>>> {
        let deadline = self.deadline();
        let mut found = Vec::with_capacity(topics.len());
        for topic in topics {
            let mut described: Option<TopicDescription> = None;
            for stream in partition::streams(topic) {
                let stream = stream.name();
                if !self.exists(stream, "describe", deadline).await? {
                    continue;
                }
                let events = self.count(stream, "describe", deadline).await?;
                if let Some(described) = &mut described {
                    described.events += events;
                    continue;
                }
                let partitions = topic.partitions().unwrap_or(1);
                let first =
                    described.insert(TopicDescription::new(topic.name(), partitions, events));
                first.settings = self.declared.settings(topic.name());
                first.groups = self.groups(stream, deadline).await?;
            }
            found.push(described);
        }
        Ok(found)
    }

    fn topic_settings(&self) -> &'static [TopicSetting] {
        match self.declared.is_empty() {
            true => manage::KEPT,
            false => manage::DECLARED,
        }
    }

    async fn list(&self) -> Result<Vec<Text>> {
        self.names(self.deadline()).await
    }

    async fn alter(&self, topics: &[TopicSpec]) -> Result<()> {
        const OPERATION: &str = "alter topics";
        let deadline = self.deadline();
        for topic in topics {
            self.refuse_fewer_partitions(topic, OPERATION, deadline)
                .await?;
            for stream in partition::streams(&named(topic)) {
                let stream = stream.name();
                if !self.exists(stream, OPERATION, deadline).await? {
                    let origin = self.link.client().origin();
                    let error = origin.plain(ErrorKind::TopicNotFound, "the stream does not exist");
                    return Err(error.with_operation(OPERATION).with_topic(stream));
                }
                self.make_groups(stream, &topic.groups, deadline).await?;
            }
        }
        Ok(())
    }

    async fn lag(&self, group: &str, topics: &[Topic]) -> Result<Vec<Lag>> {
        let deadline = self.deadline();
        let mut lags = Vec::with_capacity(topics.len());
        for topic in topics {
            let mut total = Lag::default();
            for stream in partition::streams(topic) {
                let lag = self.lag_of(group, stream.name(), deadline).await;
                let lag = lag.map_err(|error| error.with_topic(topic.name()))?;
                total = Lag::new(total.waiting + lag.waiting, total.pending + lag.pending);
            }
            lags.push(total);
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

/// The topic that is meant.
fn named(spec: &TopicSpec) -> Topic {
    let topic = Topic::new(spec.name.clone());
    match spec.partitions {
        Some(partitions) => topic.with_partitions(partitions),
        None => topic,
    }
}

impl fmt::Debug for RedisAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisAdmin")
            .field("server", self.link.client().origin())
            .finish_non_exhaustive()
    }
}
