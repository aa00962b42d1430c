use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use polybus_core::transport::{Outcome, Outgoing, Position, Publisher};
use polybus_core::{Effect, Error, ErrorKind, Result};
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep, timeout_at};

use crate::client::{Client, Cmd, Pipeline, Value};
use crate::config::RedisConfig;
use crate::connection::{Link, is_final};
use crate::entry;
use crate::error::{Failure, Origin, again};
use crate::line::{Desk, Line};
use crate::reply::{self, EntryId};
use crate::resp::{Cursor, Part};
use crate::scatter::Scatter;
use crate::together;
use crate::wire::refusal;
use crate::writing::Writing;

/// How many events go to the server in one go, and how many of these chunks are out at once: so
/// many that the server always has the next one, by measurement.
pub(crate) const CHUNK: usize = 100;
pub(crate) const CHUNKS_OUT: usize = 4;

/// The pause before another attempt to open a connection like one that there is.
const REOPEN_PAUSE: Duration = Duration::from_millis(20);

/// A chunk ends early at so many bytes, so that large events are not copied by the hundred.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Publishes to streams by pipelines of `XADD`.
///
/// One connection for all of them, so that the order of events holds, and one beside it for
/// transactions; a lost one is made anew by the next publish. Nothing is sent twice: what was on its
/// way then is [`Unknown`](Outcome::Unknown).
pub struct RedisPublisher {
    link: Link,
    /// What is published goes by it, unless the server is a cluster.
    line: std::sync::Mutex<Option<Arc<Line>>>,
    /// Held by the one caller that opens a line.
    opening: tokio::sync::Mutex<()>,
    writing: Writing,
    delivery_deadline: Duration,
    closed: AtomicBool,
    /// Read by publishes that are going on, written by a flush that waits for them.
    going_on: RwLock<()>,
}

impl RedisPublisher {
    pub(crate) async fn connect(client: &Client, config: &RedisConfig) -> Result<Self> {
        let link = Link::new(client.clone(), None);
        let deadline = Instant::now() + client.connect_deadline();
        link.connection(deadline).await?;
        let publisher = Self {
            link,
            line: std::sync::Mutex::new(None),
            opening: tokio::sync::Mutex::new(()),
            writing: Writing::new(config),
            delivery_deadline: config.delivery_deadline,
            closed: AtomicBool::new(false),
            going_on: RwLock::new(()),
        };
        if publisher.link.nodes().is_none() {
            publisher.line(deadline).await?;
        }
        Ok(publisher)
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
            *outcomes = Scatter::new(nodes, &self.writing, batch, deadline)
                .publish()
                .await;
            return Ok(());
        }
        self.publish_by_line(batch, outcomes, deadline).await
    }

    /// An error is that of the events without an outcome, none of which was sent.
    async fn publish_by_line(
        &self,
        batch: &[Outgoing],
        outcomes: &mut Vec<Outcome>,
        deadline: Instant,
    ) -> Result<()> {
        let (line, mut desk) = self.desk(deadline).await?;
        let (sent, failed) = self.send(&mut desk, batch, deadline).await;
        let mut events = batch[..sent].iter();
        let take = |answer: &[u8]| {
            if let Some(event) = events.next() {
                outcomes.push(self.answered(&line, event, answer));
            }
        };
        let read = desk.leave().await.answers(deadline, take).await;
        if let Err(failure) = read {
            let error = self.link.client().origin().error(failure, "publish");
            let open = &batch[outcomes.len()..sent];
            outcomes.extend(open.iter().map(|event| unknown(event, &error)));
        }
        match failed {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// Sends the events in their order. How many may have been sent, and why the rest was not.
    async fn send(
        &self,
        desk: &mut Desk,
        batch: &[Outgoing],
        deadline: Instant,
    ) -> (usize, Option<Error>) {
        let (mut sent, mut scratch) = (0, Vec::new());
        while sent < batch.len() {
            if Instant::now() >= deadline {
                return (sent, Some(self.late()));
            }
            let count = pack(&batch[sent..], &self.writing, &mut scratch, desk.buffer());
            sent += count;
            if let Err(failure) = desk.send(count, deadline).await {
                let error = self.link.client().origin().error(failure, "publish");
                let rest = sent < batch.len();
                return (sent, rest.then(|| error.with_effect(Effect::NotApplied)));
            }
        }
        (sent, None)
    }

    /// The right to send on a connection that is not known to be lost.
    async fn desk(&self, deadline: Instant) -> Result<(Arc<Line>, Desk)> {
        loop {
            let line = self.line(deadline).await?;
            match line.desk(deadline).await {
                Ok(Some(desk)) => return Ok((line, desk)),
                Ok(None) => {}
                Err(_) => return Err(self.late()),
            }
        }
    }

    /// The line. If it was lost, makes another, as [`Link::connection`] does.
    async fn line(&self, deadline: Instant) -> Result<Arc<Line>> {
        if let Some(line) = self.current_line() {
            return Ok(line);
        }
        let deadline = deadline.min(Instant::now() + self.link.client().connect_deadline());
        loop {
            // It shows the way: where the primary is, and that its server serves.
            let shared = self.link.connection(deadline).await?;
            let Ok(_opening) = timeout_at(deadline, self.opening.lock()).await else {
                return Err(self.late());
            };
            if let Some(line) = self.current_line() {
                return Ok(line);
            }
            let error = match shared.server().open_wire(deadline).await {
                Ok(wire) => {
                    let line = Arc::new(Line::new(wire, shared));
                    *self.line.lock().unwrap_or_else(PoisonError::into_inner) = Some(line.clone());
                    return Ok(line);
                }
                Err(error) => error,
            };
            if is_final(&error) || Instant::now() >= deadline {
                return Err(error);
            }
            shared.abort();
            sleep(REOPEN_PAUSE).await;
        }
    }

    fn current_line(&self) -> Option<Arc<Line>> {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.clone().filter(|line| line.is_alive())
    }

    /// What the answer to an `XADD` says, where it stands.
    fn answered(&self, line: &Line, event: &Outgoing, answer: &[u8]) -> Outcome {
        if let Some(Part::Bytes(id)) = Cursor::new(answer).part()
            && let Some(id) = EntryId::parse(id)
        {
            return Outcome::Accepted(id.position());
        }
        let origin = self.link.client().origin();
        let error = if answer.starts_with(b"-") {
            let failure = refusal(answer);
            if failure.has_code("READONLY") {
                line.outdate();
            }
            origin.error(failure, "publish")
        } else {
            origin.malformed("publish")
        };
        Outcome::from_error(error.with_topic(event.topic.name()))
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
        if let Some(line) = self.current_line() {
            let drained = line.drain(deadline.max(Instant::now() + self.delivery_deadline));
            // A lost connection owes no answers any more.
            let _ = timeout_at(deadline, drained).await.map_err(|_| late())?;
        }
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
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
            Some(id) => return Outcome::Accepted(id.position()),
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

/// Writes as many events as make a chunk, at least one, into a buffer.
fn pack(
    events: &[Outgoing],
    writing: &Writing,
    scratch: &mut Vec<u8>,
    buffer: &mut Vec<u8>,
) -> usize {
    let mut count = 0;
    for event in events.iter().take(CHUNK) {
        if count > 0 && buffer.len() + event.size() > CHUNK_BYTES {
            break;
        }
        count += 1;
        entry::pack(event, writing, scratch, buffer);
    }
    count
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
