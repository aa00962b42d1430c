//! A producer that publishes in transactions, one at a time.

use std::sync::Arc;
use std::time::Duration;

use polybus_core::transport::{Outcome, Outgoing, Position};
use polybus_core::{Effect, Error, ErrorKind};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::time::{Instant, timeout};

use super::pending::{Pending, Ticket};
use super::producer::{Handle, Producer};
use super::{ROOM_CHECK, blocking, record};
use crate::client::Transactional;
use crate::error::{Origin, code_of};
use crate::writing::Format;

/// How long giving a transaction up may take. Brokers do it by themselves after a while.
const ABORTS_WITHIN: Duration = Duration::from_secs(5);

/// A producer with a transactional id.
///
/// Dropped amid a transaction it leaves it open: the next session of the same id ends it, or the
/// brokers do after `delivery_deadline`. Nothing of it is stored, unless it was being committed.
#[derive(Debug)]
pub(crate) struct Session {
    producer: Producer,
    pending: Arc<Pending>,
    origin: Origin,
    format: Format,
    operation: &'static str,
}

/// Where a group goes on, to be stored with the events.
pub(crate) struct Offsets {
    pub(crate) positions: TopicPartitionList,
    pub(crate) member: ConsumerGroupMetadata,
}

/// Why a transaction is not stored, as far as is known.
pub(crate) enum Failed {
    /// It was given up. The session goes on.
    Aborted(Error),
    /// It will not be stored, and the session is of no use any more.
    Broken(Error),
    /// Nobody knows. The next session of the same id ends it.
    Undecided(Error),
}

/// Why a transaction can't be committed.
struct Unprepared {
    error: Error,
    /// It was a record that was not delivered.
    refused: bool,
}

impl From<Error> for Unprepared {
    fn from(error: Error) -> Self {
        Self {
            error,
            refused: false,
        }
    }
}

impl Session {
    /// Makes a session. When it is there, the sessions of the same id before it can do nothing
    /// more, and what they left open has been ended.
    pub(crate) async fn open(
        made: &Transactional,
        origin: &Origin,
        operation: &'static str,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let pending = Arc::new(Pending::default());
        let producer = Producer::new(&made.client, &pending, origin)
            .map_err(|error| origin.client(operation, error))?;
        let session = Self {
            producer,
            pending,
            origin: origin.clone(),
            format: made.format,
            operation,
        };
        let (handle, within) = (session.producer.handle(), left(deadline));
        let ready = blocking(move || handle.init_transactions(within)).await;
        match ready {
            Some(Ok(())) => Ok(session),
            // Nothing was begun, so nothing is left.
            Some(Err(error)) => Err(session.error(error).with_effect(Effect::NotApplied)),
            None => Err(session.ends()),
        }
    }

    /// Stores events, and where a group goes on, all or none.
    pub(crate) async fn run(
        &self,
        batch: &[Outgoing],
        offsets: Option<Offsets>,
        deadline: Instant,
    ) -> Result<Vec<Position>, Failed> {
        let not_stored = |error: Error| error.with_effect(Effect::NotApplied);
        let begun = self.blocking(Handle::begin_transaction).await;
        begun.map_err(|error| Failed::Broken(not_stored(error)))?;
        let prepared = self.prepare(batch, offsets, deadline).await;
        let prepared = match prepared {
            Ok(_) if Instant::now() >= deadline => Err(self.late().into()),
            prepared => prepared,
        };
        let positions = match prepared {
            Ok(positions) => positions,
            Err(Unprepared { error, refused }) => {
                let failed = self.abort(not_stored(error), deadline).await;
                return Err(match failed {
                    // The client does not count a record that a broker refused: its numbers would
                    // have a gap in the next transaction.
                    Failed::Aborted(error) if refused => Failed::Broken(error),
                    failed => failed,
                });
            }
        };
        let within = left(deadline);
        let committed = self.blocking(move |it| it.commit_transaction(within)).await;
        // The order to commit may have arrived, whatever is said of it.
        committed.map_err(|error| Failed::Undecided(error.with_effect(Effect::Unknown)))?;
        Ok(positions)
    }

    /// Ends it and its thread.
    pub(super) fn stop(self) -> tokio::sync::watch::Receiver<()> {
        self.producer.stop()
    }

    /// Everything but the commit.
    async fn prepare(
        &self,
        batch: &[Outgoing],
        offsets: Option<Offsets>,
        deadline: Instant,
    ) -> Result<Vec<Position>, Unprepared> {
        let mut ticket = self.pending.open(batch.len());
        for outgoing in batch {
            self.send(outgoing, &mut ticket, deadline).await?;
        }
        let outcomes = ticket.outcomes(deadline, |_| Outcome::Unknown(self.late()));
        let positions = stored(outcomes.await).map_err(|error| Unprepared {
            error: self.reason(self.given_up(error)),
            refused: true,
        })?;
        if let Some(Offsets { positions, member }) = offsets {
            let within = left(deadline);
            self.blocking(move |it| it.send_offsets(&positions, &member, within))
                .await?;
        }
        Ok(positions)
    }

    /// Hands one record to the client.
    async fn send(
        &self,
        outgoing: &Outgoing,
        ticket: &mut Ticket,
        deadline: Instant,
    ) -> Result<(), Error> {
        let topic = outgoing.topic.name();
        let mut record = record::record(outgoing, self.format, ticket.next());
        let mut looked_up = false;
        loop {
            let (error, refused) = match self.producer.send(record) {
                Ok(()) => {
                    ticket.sent();
                    return Ok(());
                }
                Err(refused) => refused,
            };
            record = refused;
            match code_of(&error) {
                Some(RDKafkaErrorCode::QueueFull) if Instant::now() < deadline => {
                    let _ = timeout(ROOM_CHECK, self.pending.room()).await;
                }
                // The client remembers for minutes that a topic does not exist.
                Some(
                    RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::UnknownTopicOrPartition,
                ) if !looked_up => {
                    looked_up = true;
                    let (handle, name) = (self.producer.handle(), topic.to_owned());
                    let within = left(deadline).min(ABORTS_WITHIN);
                    let _ = blocking(move || handle.look_up(&name, within)).await;
                }
                _ => return Err(self.reason(self.error(error)).with_topic(topic)),
            }
        }
    }

    /// Gives the transaction up.
    async fn abort(&self, error: Error, deadline: Instant) -> Failed {
        let within = left(deadline).min(ABORTS_WITHIN);
        if within.is_zero() {
            return Failed::Broken(error);
        }
        let aborted = self.blocking(move |it| it.abort_transaction(within)).await;
        match aborted {
            Ok(()) if !self.producer.is_fatal() => Failed::Aborted(error),
            Ok(()) => Failed::Broken(error),
            Err(failed) => {
                tracing::debug!(%failed, "a transaction could not be aborted: its producer is replaced");
                Failed::Broken(error)
            }
        }
    }

    async fn blocking(
        &self,
        call: impl FnOnce(&Handle) -> Result<(), KafkaError> + Send + 'static,
    ) -> Result<(), Error> {
        let handle = self.producer.handle();
        match blocking(move || call(&handle)).await {
            Some(answer) => answer.map_err(|error| self.error(error)),
            None => Err(self.ends()),
        }
    }

    /// What the client throws away because the transaction can't be any more can be tried again.
    fn given_up(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Closed {
            return error;
        }
        let why = "the client gave the transaction up";
        let given_up = self.origin.error(self.operation, ErrorKind::Transport, why);
        given_up.with_source(error)
    }

    /// The error of a record, or the one for which the client refuses everything.
    fn reason(&self, error: Error) -> Error {
        match self.producer.fatal() {
            Some(code) => self.code(code),
            None => error,
        }
    }

    fn error(&self, error: KafkaError) -> Error {
        let fatal = code_of(&error) == Some(RDKafkaErrorCode::Fatal);
        let code = match self.producer.fatal() {
            Some(code) if fatal => Some(code),
            _ => code_of(&error),
        };
        match code {
            Some(code) => self.code(code).with_source(error),
            None => self.origin.client(self.operation, error),
        }
    }

    fn code(&self, code: RDKafkaErrorCode) -> Error {
        use RDKafkaErrorCode as C;
        if !matches!(
            code,
            C::Fenced | C::ProducerFenced | C::InvalidProducerEpoch | C::InvalidProducerIdMapping
        ) {
            return self.origin.code(self.operation, code);
        }
        let why = "another producer of the same transactional id has taken over";
        let error = self.origin.error(self.operation, ErrorKind::Stale, why);
        error
            .with_note("each running instance needs a `transactional_id` of its own")
            .with_note(code.to_string())
    }

    fn late(&self) -> Error {
        let why = "the transaction was not ready for its commit before `delivery_deadline`";
        self.origin.error(self.operation, ErrorKind::Timeout, why)
    }

    fn ends(&self) -> Error {
        let why = "the runtime is shutting down";
        self.origin.error(self.operation, ErrorKind::Closed, why)
    }
}

/// The positions of events that were all taken, or the reason of the first that was refused for
/// itself.
fn stored(outcomes: Vec<Outcome>) -> Result<Vec<Position>, Error> {
    let mut positions = Vec::with_capacity(outcomes.len());
    let mut reason: Option<Error> = None;
    for outcome in outcomes {
        match outcome.into_result() {
            Ok(position) => positions.push(position),
            // The client throws the others away once one has failed.
            Err(error) => match &reason {
                Some(known) if known.kind() != ErrorKind::Closed => {}
                _ => reason = Some(error),
            },
        }
    }
    reason.map_or(Ok(positions), Err)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
