//! rdkafka's consumer by itself.

use std::time::{Duration, Instant};

use polybus::BoxError;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};

use crate::measure::{Stopwatch, Stretch};

/// How often the position is committed.
pub const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// How long to wait for a record before the run has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The settings of polybus.
pub fn consumer(brokers: &str, group: &str) -> Result<BaseConsumer, BoxError> {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("fetch.queue.backoff.ms", "2")
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", "4096")
        .set("session.timeout.ms", "10000")
        .set("partition.assignment.strategy", "cooperative-sticky");
    Ok(client.create()?)
}

/// A poll loop that reads key, headers and payload of so many records. Since the first of them.
pub fn poll(brokers: &str, topic: &str, group: &str, events: usize) -> Result<Stretch, BoxError> {
    let consumer = consumer(brokers, group)?;
    consumer.subscribe(&[topic])?;
    let (mut watch, mut bytes, mut committed) = (None, 0, Instant::now());
    for number in 0..events {
        let message = next(&consumer)?;
        watch.get_or_insert_with(Stopwatch::start);
        bytes += read(&message)?;
        if number % 1024 == 0 && committed.elapsed() >= COMMIT_EVERY {
            committed = Instant::now();
            consumer.commit_consumer_state(CommitMode::Async)?;
        }
    }
    let watch = watch.ok_or("no record was asked for")?;
    let stretch = watch.stop();
    consumer.commit_consumer_state(CommitMode::Sync)?;
    if bytes == 0 {
        Err("the records are empty".into())
    } else {
        Ok(stretch)
    }
}

/// The next record. `poll` returns without one also when it has served something else.
pub fn next(consumer: &BaseConsumer) -> Result<BorrowedMessage<'_>, BoxError> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if let Some(record) = consumer.poll(PATIENCE) {
            return Ok(record?);
        }
    }
    Err("no record came".into())
}

/// Reads what a program reads of an event: all headers as text, the key, the payload.
pub fn read(message: &impl Message) -> Result<usize, BoxError> {
    let mut bytes = message.payload().map_or(0, <[u8]>::len);
    bytes += std::str::from_utf8(message.key().unwrap_or_default())?.len();
    for header in message.headers().into_iter().flat_map(Headers::iter) {
        bytes += header.key.len() + std::str::from_utf8(header.value.unwrap_or_default())?.len();
    }
    Ok(bytes)
}
