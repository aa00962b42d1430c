use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use polybus_core::transport::{Outcome, Outgoing, Position, Publisher};
use polybus_core::{Effect, Error, ErrorKind, Result};
use tokio::sync::RwLock;
use tokio::time::{Instant, timeout_at};

use crate::client::{Client, Cmd, Pipeline, Value};
use crate::config::RedisConfig;
use crate::connection::{Link, Sent};
use crate::entry;
use crate::error::{Failure, Origin, again};
use crate::partition;
use crate::reply;
use crate::scatter::Scatter;
use crate::together;
use crate::writing::Writing;

/// How many events go to the server in one go, and how many of these chunks are out at once: so
/// many that the server always has the next one, by measurement.
pub(crate) const CHUNK: usize = 100;
pub(crate) const CHUNKS_OUT: usize = 4;

/// A chunk ends early at so many bytes, so that large events are not copied by the hundred.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Publishes to streams by pipelines of `XADD`.
///
/// One connection, so that the order of events holds; a lost one is made anew by the next
/// publish. Nothing is sent twice: what was on its way then is
/// [`Unknown`](Outcome::Unknown).
pub struct RedisPublisher {
    link: Link,
    writing: Writing,
    delivery_deadline: Duration,
    closed: AtomicBool,
    /// Read by publishes that are going on, written by a flush that waits for them.
    going_on: RwLock<()>,
}

impl RedisPublisher {
    pub(crate) async fn connect(client: &Client, config: &RedisConfig) -> Result<Self> {
        let link = Link::new(client.clone(), None);
        link.connection(Instant::now() + client.connect_deadline())
            .await?;
        Ok(Self {
            link,
            writing: Writing::new(config),
            delivery_deadline: config.delivery_deadline,
            closed: AtomicBool::new(false),
            going_on: RwLock::new(()),
        })
    }

    async fn publish_all(&self, batch: &[Outgoing], outcomes: &mut Vec<Outcome>) -> Result<()> {
        let deadline = Instant::now() + self.delivery_deadline;
        // Held to the end: a flush waits for it.
        let Ok(_going_on) = timeout_at(deadline, self.going_on.read()).await else {
            return Err(self.late());
        };
        if self.closed.load(Ordering::Acquire) {
            return Err(self.closed_error());
        }
        if let Some(nodes) = self.link.nodes() {
            let streams: Vec<_> = batch.iter().map(partition::stream_of).collect();
            *outcomes = Scatter::new(nodes, &self.writing, batch, &streams, deadline)
                .publish()
                .await;
            return Ok(());
        }
        let connection = self.link.connection(deadline).await?;
        let mut waiting: VecDeque<Chunk> = VecDeque::with_capacity(CHUNKS_OUT);
        let mut scratch = Vec::new();
        let mut rest = batch;
        while !rest.is_empty() {
            if Instant::now() >= deadline {
                break;
            }
            if waiting.len() == CHUNKS_OUT
                && let Some(chunk) = waiting.pop_front()
            {
                outcomes.extend(self.outcomes(chunk).await);
            }
            let (pipeline, count) = encode(rest.iter(), &self.writing, &mut scratch, false);
            let (events, behind) = rest.split_at(count);
            let sent = connection.send(pipeline, deadline).await;
            waiting.push_back(Chunk { events, sent });
            rest = behind;
        }
        for chunk in waiting {
            outcomes.extend(self.outcomes(chunk).await);
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(self.late())
        }
    }

    async fn outcomes(&self, chunk: Chunk<'_>) -> Vec<Outcome> {
        let events = chunk.events.iter();
        match chunk.sent.replies().await {
            Ok(replies) => events
                .zip(replies)
                .map(|(event, reply)| outcome(self.link.client().origin(), event, reply))
                .collect(),
            Err(failure) => {
                let error = self.link.client().origin().error(failure, "publish");
                events.map(|event| unknown(event, &error)).collect()
            }
        }
    }

    fn late(&self) -> Error {
        let origin = self.link.client().origin();
        origin
            .plain(
                ErrorKind::Timeout,
                "the event could not be sent before the delivery deadline",
            )
            .with_operation("publish")
    }

    fn closed_error(&self) -> Error {
        let origin = self.link.client().origin();
        origin
            .plain(ErrorKind::Closed, "the publisher is closed")
            .with_operation("publish")
    }
}

impl Publisher for RedisPublisher {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(batch.len());
        if batch.is_empty() {
            return outcomes;
        }
        if let Err(error) = self.publish_all(batch, &mut outcomes).await {
            // None of the rest was sent.
            let rest = &batch[outcomes.len()..];
            outcomes.extend(rest.iter().map(|event| rejected(event, &error)));
        }
        outcomes
    }

    async fn publish_together(&self, batch: &[Outgoing]) -> Result<Vec<Position>> {
        const OPERATION: &str = "publish_together";
        let deadline = Instant::now() + self.delivery_deadline;
        let Ok(_going_on) = timeout_at(deadline, self.going_on.read()).await else {
            return Err(self.late().with_operation(OPERATION));
        };
        if self.closed.load(Ordering::Acquire) {
            return Err(self.closed_error().with_operation(OPERATION));
        }
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        together::publish(&self.link, &self.writing, batch, deadline).await
    }

    async fn flush(&self, deadline: Instant) -> Result<()> {
        let late = || {
            let error = self.link.client().origin().plain(
                ErrorKind::Timeout,
                "the server has not answered for every event before the deadline",
            );
            error.with_operation("flush")
        };
        drop(
            timeout_at(deadline, self.going_on.write())
                .await
                .map_err(|_| late())?,
        );
        // Answers come in order: this one comes after those for callers who stopped waiting.
        // Its own deadline is a longer one, because it is no reason to give the connection up
        // that a flush can't wait.
        let mut command = Cmd::new();
        command.arg("PING");
        let patience = deadline.max(Instant::now() + self.delivery_deadline);
        let connections = self.link.all_current();
        let answers = connections.iter().map(|it| it.call(&command, patience));
        match timeout_at(deadline, join_all(answers)).await {
            // A lost connection owes no answers any more.
            Ok(_) => Ok(()),
            Err(_) => Err(late()),
        }
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        let flushed = self.flush(deadline).await;
        self.link.disconnect();
        flushed
    }
}

impl fmt::Debug for RedisPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPublisher")
            .field("server", self.link.client().origin())
            .finish_non_exhaustive()
    }
}

/// What the answer to an `XADD` says.
pub(crate) fn outcome(origin: &Origin, event: &Outgoing, reply: Value) -> Outcome {
    let error = match reply {
        Value::ServerError(error) => origin.error(Failure::Server(error), "publish"),
        reply => match reply::entry_id(&reply) {
            Some(id) => {
                let partition = partition::partition_of(event);
                return Outcome::Accepted(id.position(partition));
            }
            None => origin.malformed("publish"),
        },
    };
    Outcome::from_error(error.with_topic(event.topic.name()))
}

/// An event that was sent, and had no answer.
pub(crate) fn unknown(event: &Outgoing, error: &Error) -> Outcome {
    let error = again(error).with_effect(Effect::Unknown);
    Outcome::Unknown(error.with_topic(event.topic.name()))
}

/// An event that was not sent.
pub(crate) fn rejected(event: &Outgoing, error: &Error) -> Outcome {
    let error = again(error).with_operation("publish");
    Outcome::Rejected(error.with_topic(event.topic.name()))
}

/// Events that are on their way together.
struct Chunk<'a> {
    events: &'a [Outgoing],
    sent: Sent,
}

/// As many events as make a chunk, at least one, as commands; each behind an `ASKING` if the node
/// has to be asked for it expressly.
pub(crate) fn encode<'a>(
    events: impl ExactSizeIterator<Item = &'a Outgoing>,
    writing: &Writing,
    scratch: &mut Vec<u8>,
    asking: bool,
) -> (Pipeline, usize) {
    let mut pipeline = Pipeline::with_capacity(events.len().min(CHUNK));
    let (mut bytes, mut count) = (0, 0);
    for event in events.take(CHUNK) {
        if bytes > 0 && bytes + event.size() > CHUNK_BYTES {
            break;
        }
        bytes += event.size();
        count += 1;
        if asking {
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(entry::append(event, writing, scratch));
    }
    (pipeline, count)
}
