//! Questions to the brokers that need no group: topics, partitions, where they begin and end.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use polybus_core::Text;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;

use crate::access::Told;
use crate::client;
use crate::config::KafkaConfig;
use crate::error::{code_of, is_passing};

/// How long to wait before a question is asked again: leaders and coordinators are chosen in a
/// moment.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// How long to wait for a broker before what the client has to tell is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// A topic's partition.
pub(crate) type Partition = (String, i32);

/// A client for questions. Every call blocks.
///
/// It is a consumer without a group: a producer's questions may create the topic asked for.
pub(crate) struct Asking {
    client: OffThread<BaseConsumer<Listener>>,
    told: Arc<Mutex<Told>>,
}

/// Keeps what went wrong, which says more than the answer to a call.
pub(crate) struct Listener(Arc<Mutex<Told>>);

impl Asking {
    /// A client. Does not wait for a connection.
    pub(crate) fn new(config: &KafkaConfig, client_id: &Text) -> KafkaResult<Self> {
        let mut client = client::asking(config, client_id);
        // Nobody listens between two questions: what is worth knowing comes as an error.
        client.set_log_level(RDKafkaLogLevel::Emerg);
        let told = Arc::new(Mutex::new(Told::default()));
        let context = Listener(Arc::clone(&told));
        Ok(Self {
            client: OffThread::new(BaseConsumer::from_config_and_context(&client, context)?),
            told,
        })
    }

    /// Waits until a broker has answered. Otherwise returns what the client said meanwhile: before
    /// the time is up if a broker refuses this client and no other takes it.
    pub(crate) fn reach(&self, within: Duration) -> Result<(), Told> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let client = self.client.client();
            if client.fetch_cluster_id(left.min(GLANCE)).is_some() {
                return Ok(());
            }
            self.drain();
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.is_final() || left.is_zero() {
                return Err(std::mem::take(&mut told));
            }
        }
    }

    /// Asks a broker for a sign of life.
    pub(crate) fn ping(&self, within: Duration) -> KafkaResult<()> {
        self.drain();
        // A topic that every cluster with groups has, and that no question can create.
        let metadata = self
            .client
            .fetch_metadata(Some("__consumer_offsets"), within)?;
        match metadata.brokers().is_empty() {
            true => Err(failed(RDKafkaErrorCode::AllBrokersDown)),
            false => Ok(()),
        }
    }

    /// The number of a topic's partitions, or `None` if it does not exist.
    pub(crate) fn partitions(&self, topic: &str, within: Duration) -> KafkaResult<Option<i32>> {
        self.drain();
        partitions(&self.client, topic, within)
    }

    /// The numbers of a topic's partitions and of the replicas of each, or `None` if it does not
    /// exist.
    pub(crate) fn shape(&self, topic: &str, within: Duration) -> KafkaResult<Option<(u32, u16)>> {
        let Some(partitions) = self.partitions(topic, within)? else {
            return Ok(None);
        };
        let metadata = self.client.fetch_metadata(Some(topic), within)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let first = found.and_then(|found| found.partitions().first());
        let replicas = first.map_or(0, |partition| partition.replicas().len());
        let replicas = u16::try_from(replicas).unwrap_or(u16::MAX);
        Ok(Some((partitions.unsigned_abs(), replicas)))
    }

    /// The names of all topics.
    pub(crate) fn topics(&self, within: Duration) -> KafkaResult<Vec<String>> {
        self.drain();
        let metadata = self.client.fetch_metadata(None, within)?;
        let names = metadata.topics().iter().map(|it| it.name().to_owned());
        Ok(names.collect())
    }

    /// Where partitions begin (`Offset::Beginning`) or end (`Offset::End`).
    pub(crate) fn offsets(
        &self,
        partitions: &[Partition],
        at: Offset,
        within: Duration,
    ) -> KafkaResult<Vec<i64>> {
        self.drain();
        offsets(&self.client, partitions, at, within)
    }

    /// Takes what the client wants to tell, so that it does not pile up.
    fn drain(&self) {
        while self.client.poll(Duration::ZERO).is_some() {}
    }
}

/// A client that is taken down on a thread of its own: that waits for the client's threads, and
/// must not hold up a runtime.
pub(crate) struct OffThread<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> OffThread<T> {
    pub(crate) fn new(client: T) -> Self {
        Self(Some(client))
    }
}

impl<T: Send + 'static> Deref for OffThread<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("taken in `drop` alone")
    }
}

impl<T: Send + 'static> Drop for OffThread<T> {
    fn drop(&mut self) {
        let client = self.0.take();
        // If no thread can be had it is taken down here.
        let thread = thread::Builder::new().name("polybus-kafka-down".to_owned());
        let _ = thread.spawn(move || drop(client));
    }
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.note(code_of(&error), reason);
    }
}

impl ConsumerContext for Listener {}

/// The number of a topic's partitions, or `None` if it does not exist. Waits for leaders to be
/// chosen.
pub(crate) fn partitions<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    within: Duration,
) -> KafkaResult<Option<i32>> {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let metadata = client.fetch_metadata(Some(topic), left)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(None);
        };
        let led = found
            .partitions()
            .iter()
            .all(|partition| partition.leader() >= 0);
        match found.error().map(RDKafkaErrorCode::from) {
            None if led => {
                let count = i32::try_from(found.partitions().len());
                return Ok(Some(count.expect("Kafka counts partitions in 32 bits")));
            }
            None | Some(RDKafkaErrorCode::LeaderNotAvailable) => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Ok(None);
            }
            Some(code) => return Err(failed(code)),
        }
        if left.is_zero() {
            return Err(failed(RDKafkaErrorCode::LeaderNotAvailable));
        }
        thread::sleep(PAUSE.min(left));
    }
}

/// Where partitions begin, end, or reach a point in time (`Offset::Offset` with milliseconds
/// since 1970); the end if no event is as late. One answer for each, in the order asked.
pub(crate) fn offsets<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[Partition],
    at: Offset,
    within: Duration,
) -> KafkaResult<Vec<i64>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    // The protocol has one question for all three: `at` as a time stamp, -2 being the
    // beginning and -1 the end.
    let found = persistently(within, |left| {
        whole(client.offsets_for_times(list(partitions, at)?, left)?)
    })?;
    let mut offsets = Vec::with_capacity(partitions.len());
    let mut beyond = Vec::new();
    for (topic, partition) in partitions {
        let element = found
            .find_partition(topic, *partition)
            .ok_or_else(|| failed(RDKafkaErrorCode::UnknownPartition))?;
        match element.offset() {
            Offset::Offset(offset) => offsets.push(offset),
            _ if at == Offset::End => offsets.push(0),
            _ => {
                beyond.push((offsets.len(), (topic.clone(), *partition)));
                offsets.push(0);
            }
        }
    }
    let (places, missing): (Vec<usize>, Vec<Partition>) = beyond.into_iter().unzip();
    let ends = self::offsets(client, &missing, Offset::End, within)?;
    for (place, end) in places.into_iter().zip(ends) {
        offsets[place] = end;
    }
    Ok(offsets)
}

/// The positions that a group has committed. One answer for each, in the order asked.
pub(crate) fn committed<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[Partition],
    within: Duration,
) -> KafkaResult<Vec<Option<i64>>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let found = persistently(within, |left| {
        whole(client.committed_offsets(list(partitions, Offset::Invalid)?, left)?)
    })?;
    let positions = partitions.iter().map(|(topic, partition)| {
        let element = found
            .find_partition(topic, *partition)
            .ok_or_else(|| failed(RDKafkaErrorCode::UnknownPartition))?;
        Ok(match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    });
    positions.collect()
}

/// Writes the positions of a group, once.
pub(crate) fn commit_once<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    positions: &[(Partition, i64)],
) -> KafkaResult<()> {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for ((topic, partition), offset) in positions {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    client.commit(&list, CommitMode::Sync)
}

/// Writes the positions of a group, trying again where that may help.
pub(crate) fn commit<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    positions: &[(Partition, i64)],
    within: Duration,
) -> KafkaResult<()> {
    if positions.is_empty() {
        return Ok(());
    }
    persistently(within, |_| commit_once(client, positions))
}

/// An answer without an error of one of its partitions.
fn whole(found: TopicPartitionList) -> KafkaResult<TopicPartitionList> {
    for element in found.elements() {
        element.error()?;
    }
    Ok(found)
}

/// Asks again while the answer is one that passes.
fn persistently<T>(
    within: Duration,
    question: impl Fn(Duration) -> KafkaResult<T>,
) -> KafkaResult<T> {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match question(left) {
            Err(error) if left > PAUSE && code_of(&error).is_some_and(is_passing) => {
                thread::sleep(PAUSE);
            }
            answer => return answer,
        }
    }
}

/// Partitions with one offset for all, as the client takes them.
fn list(partitions: &[Partition], offset: Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, offset)?;
    }
    Ok(list)
}

fn failed(code: RDKafkaErrorCode) -> KafkaError {
    KafkaError::MetadataFetch(code)
}
