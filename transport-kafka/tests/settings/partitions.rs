//! Which partition an event goes to.

use std::collections::BTreeMap;

use polybus_core::transport::{Outgoing, Publisher, Transport};
use polybus_core::{Event, Topic};
use polybus_kafka::{KafkaConfig, KafkaTransport, Partitioner};
use polybus_test_support::{KafkaServer, unique_name};
use rdkafka::message::Message;

use crate::common::*;

const PARTITIONS: u32 = 7;

fn with_key(topic: &Topic, key: &str) -> Outgoing {
    let event = Event::builder("a").source("s").key(key).build().unwrap();
    Outgoing::new(topic.clone(), event)
}

/// The partition of an event with each of some keys.
async fn partitions(config: KafkaConfig, keys: &[&str]) -> Vec<u32> {
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, PARTITIONS).await;
    let publisher = kafka.publisher().await.unwrap();
    let batch: Vec<_> = keys.iter().map(|key| with_key(&topic, key)).collect();
    let outcomes = publisher.publish(&batch).await;
    let chosen = outcomes
        .into_iter()
        .map(|it| it.into_result().unwrap().partition());
    let chosen = chosen.collect();
    publisher.close(deadline()).await.unwrap();
    chosen
}

/// The values are those of the tests of the Java client.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_where_the_hash_of_the_java_client_says() {
    let server = KafkaServer::shared().await;
    let known = [
        ("21", -973_932_308_i32),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        (
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        ),
        ("abc", 479_470_107),
    ];
    let keys = known.map(|(key, _)| key);
    let expected = known.map(|(_, hash)| (hash.cast_unsigned() & 0x7fff_ffff) % PARTITIONS);
    for partitioner in [Partitioner::Murmur2Random, Partitioner::Murmur2] {
        let mut config = config(server);
        config.partitioner = partitioner;
        assert_eq!(partitions(config, &keys).await, expected, "{partitioner:?}");
    }
    let mut config = config(server);
    config.partitioner = Partitioner::Consistent;
    assert_ne!(partitions(config, &keys).await, expected, "another hash");
}

/// Kafka's own producer, in Java, and ours put the events of a key into one partition.
#[tokio::test(flavor = "multi_thread")]
async fn java_writes_a_key_to_the_same_partition() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let topic = topic(&kafka, PARTITIONS).await;
    let keys: Vec<String> = (0..40)
        .map(|number| format!("{}-é", unique_key(number)))
        .collect();
    let lines: String = keys
        .iter()
        .map(|key| format!("{key}\tfrom java\n"))
        .collect();
    let class = "org.apache.kafka.tools.ConsoleProducer";
    let arguments = [
        "--topic",
        topic.name(),
        "--reader-property",
        "parse.key=true",
    ];
    server.run_tool(class, &arguments, &lines).await.unwrap();
    let mut java = BTreeMap::new();
    for (partition, end) in (0..).zip(server.end_offsets(topic.name()).await.unwrap()) {
        let reader = bare_reader(server, &topic, partition);
        for record in bare_records(&reader, usize::try_from(end).unwrap()) {
            let key = String::from_utf8(record.key().unwrap().to_vec()).unwrap();
            java.insert(key, partition.unsigned_abs());
        }
    }
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let ours = partitions(config(server), &keys).await;
    let ours: BTreeMap<_, _> = keys.iter().map(|key| (*key).to_owned()).zip(ours).collect();
    assert_eq!(java, ours);
}

/// Of another length for each number: the hash goes by groups of four bytes.
fn unique_key(number: usize) -> String {
    unique_name("k") + &"x".repeat(number)
}
