//! What the tests of this crate share.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod raw;

use std::collections::BTreeMap;
use std::time::Duration;

use polybus_core::transport::{
    Admin, Delivery, Outgoing, Publisher, Settlement, Settler, Subscriber, Subscription, TopicSpec,
    Transport,
};
use polybus_core::{Event, Topic};
use polybus_kafka::{KafkaConfig, KafkaPublisher, KafkaSubscriber, KafkaTransport};
use polybus_test_support::{KafkaServer, unique_name};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::OwnedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::{Instant, timeout};

/// How long anything may take on a busy machine. Nothing that works comes near it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

pub(crate) fn config(server: &KafkaServer) -> KafkaConfig {
    let mut config = KafkaConfig::new([server.brokers()]);
    config.session_timeout = Duration::from_secs(6);
    config
}

pub(crate) async fn connect(server: &KafkaServer) -> KafkaTransport {
    KafkaTransport::connect(config(server)).await.unwrap()
}

/// A new topic.
pub(crate) async fn topic(kafka: &KafkaTransport, partitions: u32) -> Topic {
    let name = unique_name("topic");
    let spec = TopicSpec::new(name.as_str()).partitions(partitions);
    kafka.admin().ensure_topics(&[spec]).await.unwrap();
    Topic::new(name.as_str())
}

/// Events with ids `0`, `1`, ... and one of `keys` keys each.
pub(crate) fn numbered(
    topic: &Topic,
    numbers: std::ops::Range<usize>,
    keys: usize,
) -> Vec<Outgoing> {
    let events = numbers.map(|number| {
        let event = Event::builder("test.numbered")
            .source("test")
            .id(number.to_string())
            .key(format!("key-{}", number % keys))
            .data(format!("{number}"))
            .build()
            .unwrap();
        Outgoing::new(topic.clone(), event)
    });
    events.collect()
}

pub(crate) async fn publish_all(publisher: &KafkaPublisher, batch: &[Outgoing]) {
    for outcome in publisher.publish(batch).await {
        outcome.into_result().unwrap();
    }
}

pub(crate) async fn join(kafka: &KafkaTransport, group: &str, topic: &Topic) -> KafkaSubscriber {
    kafka
        .subscribe(Subscription::new(group, [topic.clone()]))
        .await
        .unwrap()
}

pub(crate) async fn recv(subscriber: &mut KafkaSubscriber, max: usize) -> Vec<Delivery> {
    let received = timeout(PATIENCE, subscriber.recv(max)).await;
    received.expect("something comes in time").unwrap()
}

/// How often each event was handled, by its id.
#[derive(Debug, Default)]
pub(crate) struct Counts(BTreeMap<String, usize>);

impl Counts {
    pub(crate) fn note(&mut self, delivery: &Delivery) {
        let id = delivery.event().unwrap().id().to_owned();
        *self.0.entry(id).or_default() += 1;
    }

    pub(crate) fn different(&self) -> usize {
        self.0.len()
    }

    /// Ids that came not at all or not once.
    pub(crate) fn wrong(&self, count: usize) -> Vec<(String, usize)> {
        let all = (0..count).map(|number| number.to_string());
        let counted = all.map(|id| {
            let times = self.0.get(&id).copied().unwrap_or(0);
            (id, times)
        });
        counted.filter(|(_, times)| *times != 1).collect()
    }
}

/// Receives and acknowledges until a number of different events has come.
pub(crate) async fn handle(subscriber: &mut KafkaSubscriber, counts: &mut Counts, until: usize) {
    let settler = subscriber.settler();
    while counts.different() < until {
        let received = timeout(PATIENCE, subscriber.recv(1000)).await;
        let deliveries = received
            .unwrap_or_else(|_| panic!("nothing more comes; missing: {:?}", counts.wrong(until)))
            .unwrap();
        let acks: Vec<_> = deliveries
            .iter()
            .map(|delivery| (delivery.token(), Settlement::Ack))
            .collect();
        deliveries.iter().for_each(|delivery| counts.note(delivery));
        for result in settler.settle(&acks).await {
            result.unwrap();
        }
    }
}

/// A consumer of the bare client that reads one partition from its beginning.
pub(crate) fn bare_reader(server: &KafkaServer, topic: &Topic, partition: i32) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", server.brokers())
        .set("group.id", unique_name("bare"))
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic.name(), partition, Offset::Beginning)
        .unwrap();
    consumer.assign(&list).unwrap();
    consumer
}

/// The next records of a bare consumer.
pub(crate) fn bare_records(consumer: &BaseConsumer, count: usize) -> Vec<OwnedMessage> {
    let end = std::time::Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while records.len() < count {
        assert!(std::time::Instant::now() < end, "{} records", records.len());
        // An error: a topic that was made just now is not known everywhere yet.
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            records.push(message.detach());
        }
    }
    records
}
