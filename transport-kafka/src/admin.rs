//! Topics and their state.

mod browse;

use std::sync::Arc;
use std::time::Duration;

use polybus_core::transport::{Admin, Delivery, Lag, Position, Start, TopicDescription, TopicSpec};
use polybus_core::{Error, ErrorKind, Result, Text, Topic};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{FromClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use crate::asking::{self, Asking, OffThread, Partition};
use crate::client;
use crate::config::KafkaConfig;
use crate::error::Origin;
use crate::subscriber::offset_of;

/// Manages topics and reads their state.
#[derive(Clone)]
pub struct KafkaAdmin {
    config: Arc<KafkaConfig>,
    client_id: Text,
    origin: Origin,
    asking: Arc<Asking>,
}

/// A question's answer, or the topic that it failed for and why.
type Answer<T> = Result<T, (Option<String>, KafkaError)>;

impl KafkaAdmin {
    pub(crate) fn new(
        config: Arc<KafkaConfig>,
        client_id: Text,
        origin: Origin,
        asking: Arc<Asking>,
    ) -> Self {
        Self {
            config,
            client_id,
            origin,
            asking,
        }
    }

    /// A client for a group's positions. It takes part in the group as little as a question can:
    /// it never joins, and does not wait for a transaction that a killed member left undecided.
    fn outsider(&self, group: &str) -> KafkaResult<BaseConsumer> {
        let mut settings = client::reading(&self.config, &self.client_id, group);
        // With `read_committed` a broker keeps a group's positions back until its transactions
        // are decided (KIP-447), which takes longer than a question may.
        settings.set("isolation.level", "read_uncommitted");
        settings.set_log_level(RDKafkaLogLevel::Emerg);
        BaseConsumer::from_config(&settings)
    }

    /// Asks on a thread where it may block, for at most the operation deadline.
    async fn ask<T: Send + 'static>(
        &self,
        operation: &'static str,
        question: impl FnOnce(&Self, Duration) -> Answer<T> + Send + 'static,
    ) -> Result<T> {
        let within = self.config.operation_deadline;
        let own = self.clone();
        // A tenth is left for the client's own answer, which says more than that time is up.
        let asked = spawn_blocking(move || question(&own, within - within / 10));
        match timeout_at(Instant::now() + within, asked).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err((topic, error)))) => {
                let error = self.origin.client(operation, error);
                Err(match topic {
                    Some(topic) => error.with_topic(topic),
                    None => error,
                })
            }
            Ok(Err(_)) => {
                Err(self
                    .origin
                    .error(operation, ErrorKind::Closed, "the runtime is shutting down"))
            }
            Err(_) => Err(self.late(operation)),
        }
    }

    fn late(&self, operation: &'static str) -> Error {
        self.origin
            .error(
                operation,
                ErrorKind::Timeout,
                format!("no answer within {:?}", self.config.operation_deadline),
            )
            .with_effect(polybus_core::Effect::Unknown)
    }

    /// Creates topics; one that exists is no error.
    async fn create(&self, topics: &[TopicSpec]) -> Result<()> {
        const OPERATION: &str = "ensure_topics";
        let mut settings = client::asking(&self.config, &self.client_id);
        settings.set_log_level(RDKafkaLogLevel::Emerg);
        let client = AdminClient::<DefaultClientContext>::from_config(&settings)
            .map_err(|error| self.origin.client(OPERATION, error))?;
        let client = OffThread::new(client);
        let within = self.config.operation_deadline;
        let options = AdminOptions::new()
            .request_timeout(Some(within))
            .operation_timeout(Some(within));
        let new: Vec<_> = topics.iter().map(new_topic).collect();
        let results = client.create_topics(&new, &options).await;
        for result in results.map_err(|error| self.origin.client(OPERATION, error))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(self.origin.code(OPERATION, code).with_topic(topic));
                }
            }
        }
        Ok(())
    }
}

impl Admin for KafkaAdmin {
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<()> {
        if topics.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + self.config.operation_deadline;
        timeout_at(deadline, self.create(topics))
            .await
            .unwrap_or_else(|_| Err(self.late("ensure_topics")))?;
        // A topic is of use once it has leaders, a moment after it was made.
        let names: Vec<String> = topics.iter().map(|topic| topic.name.to_string()).collect();
        self.ask("ensure_topics", move |own, within| {
            for name in names {
                until_it_appears(&own.asking, &name, within)
                    .map_err(|error| (Some(name), error))?;
            }
            Ok(())
        })
        .await
    }

    async fn describe(&self, topics: &[Topic]) -> Result<Vec<Option<TopicDescription>>> {
        let topics = topics.to_vec();
        self.ask("describe", move |own, within| {
            let described = topics.iter().map(|topic| {
                describe(&own.asking, topic, within)
                    .map_err(|error| (Some(topic.name().to_owned()), error))
            });
            described.collect()
        })
        .await
    }

    async fn lag(&self, group: &str, topics: &[Topic]) -> Result<Vec<Lag>> {
        let (group, topics) = (group.to_owned(), topics.to_vec());
        self.ask("lag", move |own, within| {
            let reader = own.outsider(&group).map_err(|error| (None, error))?;
            let lags = topics.iter().map(|topic| {
                lag(&own.asking, &reader, topic, within)
                    .map_err(|error| (Some(topic.name().to_owned()), error))
            });
            lags.collect()
        })
        .await
    }

    async fn reset(&self, group: &str, topics: &[Topic], to: Start) -> Result<()> {
        let (name, topics) = (group.to_owned(), topics.to_vec());
        let moved = self.ask("reset", move |own, within| {
            let outsider = own.outsider(&name).map_err(|error| (None, error))?;
            let mut positions = Vec::new();
            for topic in &topics {
                let starts = starts(&own.asking, topic, to, within);
                positions.extend(starts.map_err(|error| (Some(topic.name().to_owned()), error))?);
            }
            asking::commit(&outsider, &positions, within).map_err(|error| (None, error))
        });
        moved.await.map_err(|error| match error.kind() {
            // The brokers take positions from outside only where nobody is inside.
            ErrorKind::Stale => {
                let why = format!("the group `{group}` has members");
                let in_use = self.origin.error("reset", ErrorKind::InUse, why);
                in_use
                    .with_note("stop its subscriptions first; one that was killed counts until its `session_timeout`")
                    .with_source(error)
            }
            _ => error,
        })
    }

    async fn health(&self) -> Result<()> {
        self.ask("health", |own, within| {
            own.asking.ping(within).map_err(|error| (None, error))
        })
        .await
    }

    async fn browse(&self, topic: &Topic, after: &[Position], max: usize) -> Result<Vec<Delivery>> {
        self.read(topic, after, max).await
    }

    async fn purge(&self, topic: &Topic, through: &[Position]) -> Result<()> {
        self.delete(topic, through).await
    }
}

impl std::fmt::Debug for KafkaAdmin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaAdmin").finish_non_exhaustive()
    }
}

fn new_topic(topic: &TopicSpec) -> NewTopic<'_> {
    // -1 is the broker's default, for both.
    let partitions = topic.partitions.map_or(-1, saturating);
    let replication = topic.replication.map_or(-1, i32::from);
    NewTopic::new(
        &topic.name,
        partitions,
        TopicReplication::Fixed(replication),
    )
}

fn saturating(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn until_it_appears(asking: &Asking, topic: &str, within: Duration) -> KafkaResult<()> {
    let deadline = std::time::Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        if asking.partitions(topic, left)?.is_some() {
            return Ok(());
        }
        if left.is_zero() {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopic));
        }
        std::thread::sleep(Duration::from_millis(20).min(left));
    }
}

fn all_of(topic: &str, partitions: i32) -> Vec<Partition> {
    (0..partitions)
        .map(|partition| (topic.to_owned(), partition))
        .collect()
}

fn describe(
    asking: &Asking,
    topic: &Topic,
    within: Duration,
) -> KafkaResult<Option<TopicDescription>> {
    let Some(count) = asking.partitions(topic.name(), within)? else {
        return Ok(None);
    };
    let partitions = all_of(topic.name(), count);
    let begins = asking.offsets(&partitions, Offset::Beginning, within)?;
    let ends = asking.offsets(&partitions, Offset::End, within)?;
    let events = begins
        .iter()
        .zip(&ends)
        .map(|(begin, end)| between(*begin, *end));
    Ok(Some(TopicDescription::new(
        topic.name(),
        count.unsigned_abs(),
        events.sum(),
    )))
}

fn lag(
    asking: &Asking,
    reader: &BaseConsumer,
    topic: &Topic,
    within: Duration,
) -> KafkaResult<Lag> {
    let count = asking
        .partitions(topic.name(), within)?
        .ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopic))?;
    let partitions = all_of(topic.name(), count);
    let committed = asking::committed(reader, &partitions, within)?;
    let begins = asking.offsets(&partitions, Offset::Beginning, within)?;
    let ends = asking.offsets(&partitions, Offset::End, within)?;
    let waiting = committed.iter().zip(&begins).zip(&ends);
    let waiting = waiting.map(|((committed, begin), end)| {
        // What is gone from the topic can't be waited for.
        between(committed.unwrap_or(*begin).max(*begin), *end)
    });
    Ok(Lag::new(waiting.sum(), 0))
}

/// Where each partition of a topic has a start.
fn starts(
    asking: &Asking,
    topic: &Topic,
    start: Start,
    within: Duration,
) -> KafkaResult<Vec<(Partition, i64)>> {
    let count = asking
        .partitions(topic.name(), within)?
        .ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopic))?;
    let partitions = all_of(topic.name(), count);
    let offsets = asking.offsets(&partitions, offset_of(start), within)?;
    Ok(partitions.into_iter().zip(offsets).collect())
}

fn between(begin: i64, end: i64) -> u64 {
    u64::try_from(end - begin).unwrap_or(0)
}
