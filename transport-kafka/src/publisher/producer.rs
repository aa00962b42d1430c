//! The client's producer, with the thread that takes its answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use polybus_core::transport::{Outcome, Position};
use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use tokio::sync::watch;

use super::pending::Pending;
use crate::client;
use crate::error::{Origin, code_of};

/// How long the thread that takes answers waits for one before it looks whether to stop.
const STOPS_WITHIN: Duration = Duration::from_millis(100);

/// A record as the client takes it, with the number it travels with.
pub(super) type Record<'a> = BaseRecord<'a, [u8], [u8], usize>;

/// A producer. Dropping it stops its thread, which then gives up what was not sent.
pub(super) struct Producer {
    client: Option<Arc<BaseProducer<Answers>>>,
    stop: Arc<AtomicBool>,
    stopped: watch::Receiver<()>,
}

/// Takes the answers for records.
struct Answers {
    pending: Arc<Pending>,
    origin: Origin,
    /// A connection broke: what waits in the queue may have been sent once.
    cut: AtomicBool,
    /// The client refuses everything from now on.
    fatal: AtomicBool,
}

impl Producer {
    /// Makes a producer. Does not wait for a connection.
    pub(super) fn new(
        config: &ClientConfig,
        pending: &Arc<Pending>,
        origin: &Origin,
    ) -> KafkaResult<Self> {
        let answers = Answers {
            pending: Arc::clone(pending),
            origin: origin.clone(),
            cut: AtomicBool::new(false),
            fatal: AtomicBool::new(false),
        };
        let client = Arc::new(BaseProducer::from_config_and_context(config, answers)?);
        let stop = Arc::new(AtomicBool::new(false));
        let (running, stopped) = watch::channel(());
        let thread = thread::Builder::new().name("polybus-kafka-publish".to_owned());
        let (polled, told) = (Arc::clone(&client), Arc::clone(&stop));
        let spawned = thread.spawn(move || {
            while !told.load(Ordering::Acquire) {
                polled.poll(STOPS_WITHIN);
            }
            // The last one to hold the client: dropping it here, where it may block, gives up
            // what was not sent and takes the answers for it.
            drop(polled);
            drop(running);
        });
        spawned.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self {
            client: Some(client),
            stop,
            stopped,
        })
    }

    /// Hands a record to the client, or gives it back with the reason.
    #[expect(
        clippy::result_large_err,
        reason = "a record that is given back is tried again as it is"
    )]
    pub(super) fn send<'a>(&self, record: Record<'a>) -> Result<(), (KafkaError, Record<'a>)> {
        self.client().send(record)
    }

    /// Whether every record was answered.
    pub(super) fn is_empty(&self) -> bool {
        self.client().in_flight_count() == 0
    }

    /// Whether the client refuses everything from now on.
    pub(super) fn is_fatal(&self) -> bool {
        self.client().context().fatal.load(Ordering::Acquire)
    }

    /// Why it does, once the client has said so.
    pub(super) fn fatal(&self) -> Option<RDKafkaErrorCode> {
        let client = self.client().client();
        client.fatal_error().map(|(code, _)| code)
    }

    /// A handle for blocking calls.
    pub(super) fn handle(&self) -> Handle {
        Handle(Arc::clone(self.client()))
    }

    /// Stops the thread. What is returned closes when it has ended and every record is answered.
    pub(super) fn stop(self) -> watch::Receiver<()> {
        self.stopped.clone()
    }

    fn client(&self) -> &Arc<BaseProducer<Answers>> {
        self.client.as_ref().expect("taken in `drop` alone")
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // In this order: the thread is to hold the client last.
        self.client = None;
        self.stop.store(true, Ordering::Release);
    }
}

/// The client, for calls that block.
pub(super) struct Handle(Arc<BaseProducer<Answers>>);

impl Handle {
    /// Whether a broker answers within a time.
    ///
    /// Blocks.
    pub(super) fn reaches_broker(&self, within: Duration) -> bool {
        self.0.client().fetch_cluster_id(within).is_some()
    }

    /// Asks the brokers for a topic, so that the client takes note of one that was made since.
    ///
    /// Blocks.
    pub(super) fn look_up(&self, topic: &str, within: Duration) -> KafkaResult<()> {
        let client = self.0.client();
        client.fetch_metadata(Some(topic), within).map(drop)
    }

    /// Ends what others of the same transactional id left open, and shuts them out.
    ///
    /// Blocks, as the others do.
    pub(super) fn init_transactions(&self, within: Duration) -> KafkaResult<()> {
        self.0.init_transactions(within)
    }

    /// Begins a transaction.
    pub(super) fn begin_transaction(&self) -> KafkaResult<()> {
        self.0.begin_transaction()
    }

    /// Makes positions of a group a part of the transaction.
    pub(super) fn send_offsets(
        &self,
        positions: &TopicPartitionList,
        member: &ConsumerGroupMetadata,
        within: Duration,
    ) -> KafkaResult<()> {
        self.0
            .send_offsets_to_transaction(positions, member, within)
    }

    /// Ends the transaction: all of it is stored.
    pub(super) fn commit_transaction(&self, within: Duration) -> KafkaResult<()> {
        self.0.commit_transaction(within)
    }

    /// Ends the transaction: nothing of it is.
    pub(super) fn abort_transaction(&self, within: Duration) -> KafkaResult<()> {
        self.0.abort_transaction(within)
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl ClientContext for Answers {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::log_error(&error, reason);
        self.cut.store(true, Ordering::Release);
        if code_of(&error) == Some(RDKafkaErrorCode::Fatal) {
            self.fatal.store(true, Ordering::Release);
        }
    }
}

impl ProducerContext for Answers {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let outcome = match result {
            Ok(message) => Outcome::Accepted(position(message.partition(), message.offset())),
            Err((error, message)) => {
                let code = code_of(error).unwrap_or(RDKafkaErrorCode::Unknown);
                let cut = self.cut.load(Ordering::Acquire);
                self.origin.undelivered(message.topic(), code, cut)
            }
        };
        self.pending.answer(number, outcome);
    }
}

/// A broker that has a record already may say so without saying where: then the offset is
/// `u64::MAX`.
fn position(partition: i32, offset: i64) -> Position {
    Position::new(
        u32::try_from(partition).unwrap_or(u32::MAX),
        u64::try_from(offset).unwrap_or(u64::MAX),
    )
}
