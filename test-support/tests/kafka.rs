//! A real Kafka: started, disrupted, and still itself. Spoken to with its own tools.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::net::TcpStream;
use std::time::Duration;

use polybus_test_support::{KafkaServer, unique_name};

const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";

async fn produce(server: &KafkaServer, topic: &str, lines: &str) {
    server
        .run_tool(PRODUCER, &["--topic", topic], lines)
        .await
        .unwrap();
}

/// Reads `count` records from the beginning, or fails.
async fn consume(server: &KafkaServer, topic: &str, count: &str) -> String {
    let arguments = [
        "--topic",
        topic,
        "--from-beginning",
        "--max-messages",
        count,
        "--timeout-ms",
        "20000",
    ];
    server.run_tool(CONSUMER, &arguments, "").await.unwrap()
}

#[tokio::test]
async fn what_was_written_is_there_after_a_kill() {
    let server = KafkaServer::start().await.unwrap();
    let brokers = server.brokers().to_owned();
    let topic = unique_name("orders");
    server.create_topic(&topic, 1).await.unwrap();
    produce(&server, &topic, "one\ntwo\n").await;
    assert_eq!(server.end_offsets(&topic).await.unwrap(), [2]);

    server.kill().await.unwrap();
    assert!(TcpStream::connect(&brokers).is_err());
    server.restart().await.unwrap();

    assert_eq!(server.brokers(), brokers);
    assert_eq!(server.end_offsets(&topic).await.unwrap(), [2]);
    produce(&server, &topic, "three\n").await;
    assert_eq!(consume(&server, &topic, "3").await, "one\ntwo\nthree\n");
}

#[tokio::test]
async fn it_comes_back_from_a_stop_and_from_a_pause() {
    let server = KafkaServer::start().await.unwrap();
    let topic = unique_name("orders");
    server.create_topic(&topic, 3).await.unwrap();
    server.stop().await.unwrap();
    assert!(TcpStream::connect(server.brokers()).is_err());
    server.restart().await.unwrap();
    server.pause().await.unwrap();
    let address = server.brokers().parse().unwrap();
    TcpStream::connect_timeout(&address, Duration::from_secs(2)).unwrap();
    server.resume().await.unwrap();
    assert_eq!(server.end_offsets(&topic).await.unwrap(), [0, 0, 0]);
}

#[tokio::test]
async fn a_topic_is_not_made_by_reading_it() {
    let server = KafkaServer::shared().await;
    let refused = server.end_offsets(&unique_name("nothing")).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn the_shared_server_is_one() {
    let (one, two) = tokio::join!(KafkaServer::shared(), KafkaServer::shared());
    assert!(std::ptr::eq(one, two));
    assert_eq!(one.url(), format!("kafka://{}", one.brokers()));
}
