//! What is written to the server of how far a group has come.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::time::Duration;

use common::*;
use polybus_core::transport::{Admin, Outgoing, Settlement, Settler, Subscriber, Transport};
use polybus_core::{ErrorKind, Topic};
use polybus_kafka::KafkaTransport;
use polybus_test_support::{KafkaServer, unique_name};
use tokio::time::{sleep, timeout};

/// How many events are past a group's positions.
async fn waiting(kafka: &KafkaTransport, group: &str, topic: &Topic) -> u64 {
    let lag = kafka.admin().lag(group, std::slice::from_ref(topic)).await;
    lag.unwrap()[0].waiting
}

#[tokio::test(flavor = "multi_thread")]
async fn close_writes_the_position_whatever_the_interval() {
    let server = KafkaServer::shared().await;
    let mut config = config(server);
    config.commit_interval = Duration::from_secs(3600);
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, 1).await;
    let group = unique_name("group");
    let publisher = kafka.publisher().await.unwrap();
    publish_all(&publisher, &numbered(&topic, 0..10, 1)).await;
    let mut member = join(&kafka, &group, &topic).await;
    let mut deliveries = Vec::new();
    while deliveries.len() < 10 {
        deliveries.extend(recv(&mut member, 10).await);
    }
    // All but number 6.
    let settler = member.settler();
    let others = deliveries.iter().filter(|d| d.position().offset() != 6);
    let acks: Vec<_> = others.map(|d| (d.token(), Settlement::Ack)).collect();
    settler.settle(&acks).await;
    assert_eq!(waiting(&kafka, &group, &topic).await, 10);
    member.close(deadline()).await.unwrap();
    let left = waiting(&kafka, &group, &topic).await;
    assert_eq!(left, 4, "the prefix in which everything is done");

    let late = settler
        .settle(&[(deliveries[6].token(), Settlement::Ack)])
        .await;
    let error = late.into_iter().next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
    assert_eq!(waiting(&kafka, &group, &topic).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_position_is_written_at_the_interval() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let topic = topic(&kafka, 2).await;
    let group = unique_name("group");
    let publisher = kafka.publisher().await.unwrap();
    let mut member = join(&kafka, &group, &topic).await;
    let mut counts = Counts::default();
    for round in 1..=3 {
        let events = numbered(&topic, (round - 1) * 10..round * 10, 10);
        publish_all(&publisher, &events).await;
        handle(&mut member, &mut counts, round * 10).await;
        timeout(PATIENCE, async {
            while waiting(&kafka, &group, &topic).await > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("what is settled is written without a close");
    }
}

/// What the client has handed to the reader counts as consumed for the client, also while the
/// reader's queue, full of another partition, has no room for it.
#[tokio::test(flavor = "multi_thread")]
async fn no_position_is_written_past_what_waits_for_room() {
    const EVENTS: usize = 1_000;
    let mut config = config(KafkaServer::shared().await);
    config.buffer_events = 10;
    config.commit_interval = Duration::from_millis(10);
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, 2).await;
    let group = unique_name("group");
    let publisher = kafka.publisher().await.unwrap();
    publish_all(&publisher, &numbered(&topic, 0..EVENTS, 100)).await;
    let mut member = join(&kafka, &group, &topic).await;
    let mut counts = Counts::default();
    // All that is in the queue at a time, so that the next one's turn fills it.
    while counts.different() < EVENTS / 2 {
        let some = counts.different() + 1;
        handle(&mut member, &mut counts, some).await;
        // Not a wait for something: what would be wrong has the time to happen.
        sleep(Duration::from_millis(30)).await;
        let waiting = waiting(&kafka, &group, &topic).await;
        let to_come = EVENTS - counts.different();
        assert!(
            waiting >= to_come.try_into().unwrap(),
            "{waiting} of {to_come}"
        );
    }
    handle(&mut member, &mut counts, EVENTS).await;
    member.close(deadline()).await.unwrap();
    assert_eq!(counts.wrong(EVENTS), []);
}

/// So that nobody waits for it when it is needed.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_is_raised_before_it_is_reached() {
    const EVENTS: usize = 1_500;
    let kafka = connect(KafkaServer::shared().await).await;
    let topic = topic(&kafka, 1).await;
    let group = unique_name("group");
    let marks = format!("{group}.marks");
    let publisher = kafka.publisher().await.unwrap();
    publish_all(&publisher, &numbered(&topic, 0..EVENTS, 10)).await;
    let mut member = join(&kafka, &group, &topic).await;
    let mut counts = Counts::default();
    let settler = member.settler();
    while counts.different() < 600 {
        let received = recv(&mut member, 1).await;
        counts.note(&received[0]);
        settler
            .settle(&[(received[0].token(), Settlement::Ack)])
            .await;
    }
    timeout(PATIENCE, async {
        // The first mark is at 1,000.
        while waiting(&kafka, &marks, &topic).await > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it is raised over the 1,500th");
    handle(&mut member, &mut counts, EVENTS).await;
    member.close(deadline()).await.unwrap();
    assert_eq!(counts.wrong(EVENTS), []);
}

/// The client asks a broker for several partitions at once, and the broker answers when there is
/// something of one of them: a partition with a backlog is not to wait for one without.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_does_not_wait_for_partitions_without_news() {
    const EVENTS: usize = 300;
    let mut config = config(KafkaServer::shared().await);
    config.fetch_buffer = 4 * 1024;
    config.buffer_events = 10;
    for (name, value) in [
        // It may wait once or twice, where the reader makes room while the client looks at one
        // partition after the other. If it waits each time that takes longer than this test may.
        ("fetch.wait.max.ms", "5000"),
        ("fetch.message.max.bytes", "16384"),
    ] {
        config.properties.insert(name.to_owned(), value.into());
    }
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, 8).await;
    let publisher = kafka.publisher().await.unwrap();
    // All of one key, and so of one partition. What is stored at once comes at once.
    for some in numbered(&topic, 0..EVENTS, 1).chunks(10) {
        let large = |outgoing: &Outgoing| {
            let event = outgoing
                .event()
                .unwrap()
                .to_builder()
                .data(vec![b'0'; 1024]);
            Outgoing::new(topic.clone(), event.build().unwrap())
        };
        let some: Vec<_> = some.iter().map(large).collect();
        publish_all(&publisher, &some).await;
    }
    let mut counts = Counts::default();
    let mut member = join(&kafka, &unique_name("group"), &topic).await;
    timeout(PATIENCE, async {
        while counts.different() < EVENTS {
            let some = counts.different() + 1;
            handle(&mut member, &mut counts, some).await;
            // Not a wait for something: slower than the client reads ahead, so that it has to pause.
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the backlog is read");
    member.close(deadline()).await.unwrap();
    assert_eq!(counts.wrong(EVENTS), []);
}
