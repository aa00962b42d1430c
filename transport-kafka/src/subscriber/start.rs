//! Where a group starts that has no position yet.

use std::time::{Duration, Instant};

use polybus_core::transport::{Start, Subscription};
use polybus_core::{Error, ErrorKind, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::metadata::MetadataPartition;
use rdkafka::topic_partition_list::Offset;

use super::context::Events;
use crate::asking::{self, Partition};
use crate::error::{Origin, code_of};

/// Every partition of the topics of a subscription, and of those that fit its patterns now.
///
/// # Errors
///
/// [`ErrorKind::TopicNotFound`] for a topic that does not exist; [`ErrorKind::Connect`] if no
/// broker answers.
pub(super) fn partitions(
    consumer: &BaseConsumer<Events>,
    subscription: &Subscription,
    within: Duration,
    origin: &Origin,
) -> Result<Vec<Partition>> {
    let deadline = Instant::now() + within;
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut all = Vec::new();
    for topic in &subscription.topics {
        let name = topic.name();
        let count = asking::partitions(consumer, name, left())
            .map_err(|error| unreachable(error, within, origin).with_topic(name))?;
        let count = count.ok_or_else(|| {
            origin
                .error(
                    "subscribe",
                    ErrorKind::TopicNotFound,
                    "the topic does not exist",
                )
                .with_topic(name)
                .with_note("create it first, for example with `ensure_topics`")
        })?;
        all.extend((0..count).map(|partition| (name.to_owned(), partition)));
    }
    if !subscription.patterns.is_empty() {
        let metadata = consumer
            .fetch_metadata(None, left())
            .map_err(|error| unreachable(error, within, origin))?;
        for topic in metadata.topics() {
            let fits = |name: &str| subscription.patterns.iter().any(|p| p.matches(name));
            let named = subscription.topics.iter().any(|t| t.name() == topic.name());
            if fits(topic.name()) && !named {
                let ids = topic.partitions().iter().map(MetadataPartition::id);
                all.extend(ids.map(|id| (topic.name().to_owned(), id)));
            }
        }
    }
    Ok(all)
}

/// What the first question failed with: mostly that nobody answers.
fn unreachable(error: KafkaError, within: Duration, origin: &Origin) -> Error {
    let code = code_of(&error).map(|code| origin.code("subscribe", code).kind());
    match code {
        Some(ErrorKind::Timeout | ErrorKind::Connect) | None => origin
            .error(
                "subscribe",
                ErrorKind::Connect,
                format!("no broker answered within {within:?}"),
            )
            .with_source(error),
        Some(_) => origin.client("subscribe", error),
    }
}

/// The positions of a group, and for each partition without one the offset it starts with.
pub(super) struct Positions {
    /// In the order asked.
    pub(super) all: Vec<i64>,
    /// Those that the server does not have yet.
    pub(super) new: Vec<(Partition, i64)>,
}

/// Looks up where a group stands, and where it starts if it does not: `start` for partitions
/// that `subscribed` names, the beginning for those that appeared later.
pub(super) fn positions(
    consumer: &BaseConsumer<Events>,
    asked: &[Partition],
    start: Start,
    subscribed: impl Fn(&Partition) -> bool,
    within: Duration,
) -> KafkaResult<Positions> {
    let committed = asking::committed(consumer, asked, within)?;
    let missing = || asked.iter().zip(&committed).filter(|(_, c)| c.is_none());
    let (named, later): (Vec<Partition>, Vec<Partition>) = missing()
        .map(|(partition, _)| partition.clone())
        .partition(|partition| subscribed(partition));
    let mut new = Vec::new();
    for (partitions, at) in [(named, offset_of(start)), (later, Offset::Beginning)] {
        let offsets = asking::offsets(consumer, &partitions, at, within)?;
        new.extend(partitions.into_iter().zip(offsets));
    }
    let all = asked.iter().zip(&committed).map(|(partition, committed)| {
        let fresh = || new.iter().find(|(known, _)| known == partition);
        committed
            .or_else(|| fresh().map(|(_, offset)| *offset))
            .expect("each partition is committed or new")
    });
    let all = all.collect();
    Ok(Positions { all, new })
}

/// What the brokers are asked for to find a start.
pub(crate) fn offset_of(start: Start) -> Offset {
    match start {
        Start::Now => Offset::End,
        Start::Time(time) => Offset::Offset(time.as_millisecond().max(0)),
        // The default, which skips nothing.
        _ => Offset::Beginning,
    }
}
