//! Publishing: records go into the client's queue in the order of the calls, and come back with
//! a position.

mod alone;
mod pending;
mod pool;
mod producer;
mod record;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use polybus_core::transport::{Outcome, Outgoing, Position, Publisher};
use polybus_core::{Effect, ErrorKind, Result, Text};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use self::pending::{Pending, Ticket};
use self::pool::Pool;
use self::producer::{Handle, Producer, Record};
pub(crate) use self::session::{Failed, Offsets, Session};
use crate::client;
use crate::config::KafkaConfig;
use crate::error::{Origin, code_of};
use crate::ids::Ids;
use crate::writing::Format;

/// How long to wait at most before the client's queue is looked at again. An answer ends the
/// wait, but the client frees the record's place only a moment after it.
const ROOM_CHECK: Duration = Duration::from_millis(1);

/// Publishes on Kafka: idempotently, and acknowledged by all replicas that are in sync, unless
/// [`acks`](KafkaConfig::acks) says otherwise.
///
/// An accepted event's position is its partition and offset. A broker that had taken an event
/// before an answer was lost may confirm it without an offset, which is then `u64::MAX`.
///
/// Dropping it gives up what is not sent; [`close`](Publisher::close) waits.
#[derive(Debug)]
pub struct KafkaPublisher {
    origin: Origin,
    client: ClientConfig,
    format: Format,
    delivery_deadline: Duration,
    operation_deadline: Duration,
    pending: Arc<Pending>,
    closed: AtomicBool,
    /// One call at a time puts records into the client's queue, so that those of a call that
    /// waits for room are not overtaken.
    queue: Mutex<Queue>,
    transactions: Pool,
}

#[derive(Debug)]
enum Queue {
    Open(Producer),
    Closed(Option<watch::Receiver<()>>),
}

/// Why the client did not take a record.
enum Refusal<'a> {
    /// Its queue is full.
    Full(Record<'a>),
    /// It takes nothing any more: another one may.
    Fatal(Record<'a>),
    /// It holds something against the topic, which may have changed since.
    Topic(Record<'a>, KafkaError),
    Other(KafkaError),
}

impl KafkaPublisher {
    /// Makes a publisher and waits until it has reached a broker.
    pub(crate) async fn connect(
        config: &Arc<KafkaConfig>,
        client_id: &Text,
        origin: Origin,
        ids: Arc<Ids>,
    ) -> Result<Self> {
        let client = client::publishing(config, client_id);
        let pending = Arc::new(Pending::default());
        let producer = Producer::new(&client, &pending, &origin)
            .map_err(|error| origin.client("publisher", error))?;
        let (handle, within) = (producer.handle(), config.connect_deadline);
        let reached = blocking(move || handle.reaches_broker(within)).await;
        if reached != Some(true) {
            return Err(origin.error(
                "publisher",
                ErrorKind::Connect,
                format!("no broker answered within {within:?}"),
            ));
        }
        let transactions = Pool::new(Arc::clone(config), client_id.clone(), origin.clone(), ids);
        Ok(Self {
            origin,
            client,
            format: config.format,
            delivery_deadline: config.delivery_deadline,
            operation_deadline: config.operation_deadline,
            pending,
            closed: AtomicBool::new(false),
            queue: Mutex::new(Queue::Open(producer)),
            transactions,
        })
    }

    /// Puts a batch into the client's queue, or settles what does not get there.
    async fn enqueue(&self, batch: &[Outgoing], ticket: &mut Ticket, deadline: Instant) {
        let Ok(mut queue) = timeout_at(deadline, self.queue.lock()).await else {
            return self.reject_rest(batch, ticket, || self.full());
        };
        for outgoing in batch {
            let Queue::Open(producer) = &mut *queue else {
                return self.reject_rest(batch, ticket, || self.refused());
            };
            // Mostly it is taken at once, and no future is made for it.
            let record = record::record(outgoing, self.format, ticket.next());
            let sent = match try_send(producer, record) {
                Ok(()) => Ok(()),
                Err(refusal) => self.insist(producer, refusal, outgoing, deadline).await,
            };
            match sent {
                Ok(()) => ticket.sent(),
                Err(Some(outcome)) => ticket.settle(outcome),
                Err(None) => return self.reject_rest(batch, ticket, || self.full()),
            }
        }
    }

    /// Hands one record to the client. `Err(None)` if there was no room before the deadline.
    async fn send(
        &self,
        producer: &mut Producer,
        outgoing: &Outgoing,
        number: usize,
        deadline: Instant,
    ) -> Result<(), Option<Outcome>> {
        let record = record::record(outgoing, self.format, number);
        match try_send(producer, record) {
            Ok(()) => Ok(()),
            Err(refusal) => self.insist(producer, refusal, outgoing, deadline).await,
        }
    }

    /// Goes on with a record that the client has refused, as [`send`](Self::send) does.
    async fn insist<'a>(
        &self,
        producer: &mut Producer,
        refusal: Refusal<'a>,
        outgoing: &'a Outgoing,
        deadline: Instant,
    ) -> Result<(), Option<Outcome>> {
        let topic = outgoing.topic.name();
        let refused = |error| Some(self.origin.not_taken(topic, error));
        let (mut looked_up, mut rebuilt) = (false, false);
        let mut sent = Err(refusal);
        loop {
            let record = match sent {
                Ok(()) => return Ok(()),
                Err(Refusal::Full(record)) => {
                    let _ = timeout(ROOM_CHECK, self.pending.room()).await;
                    // Room that comes later is not taken: nobody waits for the answer any more.
                    if Instant::now() >= deadline {
                        return Err(None);
                    }
                    record
                }
                Err(Refusal::Fatal(record)) if !rebuilt => {
                    rebuilt = true;
                    *producer = self.rebuild().map_err(refused)?;
                    record
                }
                Err(Refusal::Topic(record, _)) if !looked_up => {
                    looked_up = true;
                    self.look_up(producer.handle(), topic, deadline).await;
                    record
                }
                Err(Refusal::Fatal(_)) => {
                    let code = RDKafkaErrorCode::Fatal;
                    return Err(refused(KafkaError::MessageProduction(code)));
                }
                Err(Refusal::Topic(_, error) | Refusal::Other(error)) => {
                    return Err(refused(error));
                }
            };
            sent = try_send(producer, record);
        }
    }

    /// A new producer in place of one that refuses everything: its session with the brokers was
    /// lost, and going on with it could store events twice or out of order.
    fn rebuild(&self) -> Result<Producer, KafkaError> {
        tracing::warn!("the producer failed for good and is replaced by a new one");
        Producer::new(&self.client, &self.pending, &self.origin)
    }

    /// The client remembers for minutes that a topic does not exist or is not for us: asks again.
    async fn look_up(&self, handle: Handle, topic: &str, deadline: Instant) {
        let within = self
            .operation_deadline
            .min(deadline.saturating_duration_since(Instant::now()));
        let name = topic.to_owned();
        if let Some(Err(error)) = blocking(move || handle.look_up(&name, within)).await {
            tracing::debug!(topic, %error, "the topic could not be looked up");
        }
    }

    fn reject_rest(
        &self,
        batch: &[Outgoing],
        ticket: &mut Ticket,
        why: impl Fn() -> polybus_core::Error,
    ) {
        for outgoing in &batch[ticket.passed_on()..] {
            let error = why().with_topic(outgoing.topic.name());
            ticket.settle(Outcome::Rejected(error));
        }
    }

    fn full(&self) -> polybus_core::Error {
        self.origin
            .error(
                "publish",
                ErrorKind::Full,
                "the client's queue had no room before `delivery_deadline`",
            )
            .with_note("the brokers are slow or away, or the queue is too small for the load")
    }

    fn refused(&self) -> polybus_core::Error {
        self.origin
            .error("publish", ErrorKind::Closed, "the publisher is closed")
    }

    fn late(&self, outgoing: &Outgoing) -> Outcome {
        let why = format!("no answer within {:?}", self.delivery_deadline);
        let error = self
            .origin
            .error("publish", ErrorKind::Timeout, why)
            .with_topic(outgoing.topic.name())
            .with_effect(Effect::Unknown);
        Outcome::Unknown(error)
    }
}

impl Publisher for KafkaPublisher {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        if batch.is_empty() {
            return Vec::new();
        }
        let deadline = Instant::now() + self.delivery_deadline;
        let mut ticket = self.pending.open(batch.len());
        if self.closed.load(Ordering::Acquire) {
            self.reject_rest(batch, &mut ticket, || self.refused());
        } else {
            self.enqueue(batch, &mut ticket, deadline).await;
        }
        let outcomes = ticket
            .outcomes(deadline, |index| self.late(&batch[index]))
            .await;
        self.publish_alone(batch, outcomes, deadline).await
    }

    async fn publish_together(&self, batch: &[Outgoing]) -> Result<Vec<Position>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(self.refused().with_operation("publish_together"));
        }
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + self.delivery_deadline;
        self.transactions.publish(batch, deadline).await
    }

    async fn flush(&self, deadline: Instant) -> Result<()> {
        self.transactions.flush(deadline).await?;
        self.pending.flush(deadline).await.map_err(|left| {
            self.origin.error(
                "flush",
                ErrorKind::Timeout,
                format!("{left} events had no answer at the deadline"),
            )
        })
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        let flushed = self.flush(deadline).await;
        self.transactions.close(deadline).await;
        // Whoever puts records into the queue now began before and stops at its own deadline.
        let Ok(mut queue) = timeout_at(deadline, self.queue.lock()).await else {
            return flushed;
        };
        let stopped = match std::mem::replace(&mut *queue, Queue::Closed(None)) {
            Queue::Open(producer) => Some(producer.stop()),
            Queue::Closed(stopped) => stopped,
        };
        *queue = Queue::Closed(stopped.clone());
        drop(queue);
        if let Some(mut stopped) = stopped
            && timeout_at(deadline, stopped.changed()).await.is_err()
        {
            tracing::debug!("the producer is still shutting down");
        }
        flushed
    }
}

#[expect(
    clippy::result_large_err,
    reason = "a record that is given back is tried again as it is"
)]
#[inline]
fn try_send<'a>(producer: &Producer, record: Record<'a>) -> Result<(), Refusal<'a>> {
    if producer.is_fatal() {
        return Err(Refusal::Fatal(record));
    }
    producer
        .send(record)
        .map_err(|(error, record)| match code_of(&error) {
            Some(RDKafkaErrorCode::QueueFull) => Refusal::Full(record),
            Some(RDKafkaErrorCode::Fatal) => Refusal::Fatal(record),
            Some(
                RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed,
            ) => Refusal::Topic(record, error),
            _ => Refusal::Other(error),
        })
}

/// Runs what blocks on a thread for it. `None` if the runtime is shutting down.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    spawn_blocking(work).await.ok()
}
