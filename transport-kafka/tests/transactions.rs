//! Events that are stored all or none, and what a member has done with what comes of it.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use polybus_core::transport::{
    AckToken, Admin, Delivery, Outgoing, Publisher, Settlement, Settler, Subscriber, Subscription,
    Transport,
};
use polybus_core::{Effect, ErrorKind, Event, Topic};
use polybus_kafka::{KafkaPublisher, KafkaSubscriber, KafkaTransport};
use polybus_test_support::{KafkaServer, unique_name};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::{Instant, timeout};

fn too_large(topic: &Topic) -> Outgoing {
    let event = Event::builder("too.large").source("test");
    let event = event.data(vec![0; 10 << 20]).build().unwrap();
    Outgoing::new(topic.clone(), event)
}

/// What comes of a topic that holds this many or more, until nothing more does.
async fn ids(kafka: &KafkaTransport, topic: &Topic, at_least: usize) -> Vec<String> {
    let mut member = join(kafka, &unique_name("group"), topic).await;
    let mut ids = Vec::new();
    loop {
        // Silence is the end only behind what must come.
        let wait = match ids.len() < at_least {
            true => Duration::from_secs(60),
            false => Duration::from_secs(2),
        };
        let Ok(came) = timeout(wait, member.recv(500)).await else {
            return ids;
        };
        let came = came.unwrap();
        ids.extend(came.iter().map(|it| it.event().unwrap().id().to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_aborted_is_on_the_broker_and_no_member_gets_it() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let topic = topic(&kafka, 1).await;
    let publisher = kafka.publisher().await.unwrap();
    let committed = numbered(&topic, 0..10, 2);
    publisher.publish_together(&committed).await.unwrap();
    let mut aborted = numbered(&topic, 100..110, 2);
    aborted.push(too_large(&topic));
    let error = publisher.publish_together(&aborted).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert_eq!(error.effect(), Effect::NotApplied);
    assert_eq!(error.topic(), Some(topic.name()));
    let more = numbered(&topic, 10..20, 2);
    publisher.publish_together(&more).await.unwrap();

    // A reader that asks for everything gets the aborted ones too: they were stored at first.
    let all: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", server.brokers())
        .set("group.id", unique_name("bare"))
        .set("isolation.level", "read_uncommitted")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic.name(), 0, Offset::Beginning)
        .unwrap();
    all.assign(&list).unwrap();
    assert!(bare_records(&all, 21).len() > 20);
    let expected: Vec<_> = (0..20).map(|id| id.to_string()).collect();
    assert_eq!(ids(&kafka, &topic, 20).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_of_the_same_id_shuts_out_the_first() {
    let server = KafkaServer::shared().await;
    let id = unique_name("transactional");
    let connect = async || {
        let mut config = config(server);
        config.transactional_id = Some(id.clone());
        KafkaTransport::connect(config).await.unwrap()
    };
    let (first, second) = (connect().await, connect().await);
    let topic = topic(&first, 1).await;
    let publishers = (
        first.publisher().await.unwrap(),
        second.publisher().await.unwrap(),
    );
    let batch = |number| numbered(&topic, number..number + 1, 1);
    publishers.0.publish_together(&batch(0)).await.unwrap();
    publishers.1.publish_together(&batch(1)).await.unwrap();
    let error = publishers.0.publish_together(&batch(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
    assert_eq!(error.effect(), Effect::NotApplied);
    assert!(error.to_string().contains("transactional_id"), "{error}");
    // Its next session shuts out the other one in turn.
    publishers.0.publish_together(&batch(3)).await.unwrap();
    assert_eq!(ids(&first, &topic, 3).await, ["0", "1", "3"]);
}

/// Publishes transactions, which are numbered, while the broker is killed and comes back, and
/// returns what was told of each.
async fn cut_by_kills(
    server: &KafkaServer,
    publisher: &KafkaPublisher,
    batch: impl Fn(usize) -> Vec<Outgoing>,
) -> Vec<polybus_core::Result<()>> {
    let (stored, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = async {
        let mut told = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let outcome = publisher.publish_together(&batch(told.len())).await;
            if outcome.is_ok() {
                stored.fetch_add(1, Ordering::SeqCst);
            }
            told.push(outcome.map(drop));
        }
        told
    };
    let reach = async |count: usize| {
        let end = deadline();
        while stored.load(Ordering::SeqCst) < count {
            assert!(
                Instant::now() < end,
                "{} stored",
                stored.load(Ordering::SeqCst)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let faults = async {
        for round in 1..4 {
            reach(round * 30).await;
            server.kill().await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            server.restart().await.unwrap();
            let now = stored.load(Ordering::SeqCst);
            reach(now + 5).await;
        }
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(work, faults).0
}

/// Kills the broker while transactions are under way: each of them is stored whole or not at all,
/// as was told, and the publisher goes on afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_cut_by_a_killed_broker_are_whole_or_nothing() {
    const EACH: usize = 5;
    let server = KafkaServer::start().await.unwrap();
    let mut config = config(&server);
    config.delivery_deadline = Duration::from_secs(3);
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topics = [topic(&kafka, 1).await, topic(&kafka, 1).await];
    let publisher = kafka.publisher().await.unwrap();
    let batch = |number: usize| {
        let numbers = number * EACH..(number + 1) * EACH;
        let mut batch = numbered(&topics[0], numbers.clone(), 1);
        batch.extend(numbered(&topics[1], numbers, 1));
        batch
    };
    let told = cut_by_kills(&server, &publisher, batch).await;
    let cut = told.iter().filter(|it| it.is_err()).count();
    assert!(cut > 0, "no transaction was cut");
    let stored = told.iter().filter(|it| it.is_ok()).count() * EACH;
    let mut came = BTreeMap::<usize, usize>::new();
    for topic in &topics {
        for id in ids(&kafka, topic, stored).await {
            *came.entry(id.parse::<usize>().unwrap() / EACH).or_default() += 1;
        }
    }
    for (number, told) in told.iter().enumerate() {
        let came = came.get(&number).copied().unwrap_or(0);
        match told {
            Ok(()) => assert_eq!(came, 2 * EACH, "transaction {number}"),
            Err(error) if error.effect() == Effect::NotApplied => {
                assert_eq!(came, 0, "transaction {number}: {error}");
            }
            Err(_) => assert!(
                came == 0 || came == 2 * EACH,
                "{came} of transaction {number}"
            ),
        }
    }
}

async fn lag(kafka: &KafkaTransport, group: &str, topic: &Topic) -> u64 {
    let topics = std::slice::from_ref(topic);
    kafka.admin().lag(group, topics).await.unwrap()[0].waiting
}

async fn join_exactly_once(kafka: &KafkaTransport, group: &str, topic: &Topic) -> KafkaSubscriber {
    let subscription = Subscription::new(group, [topic.clone()]).exactly_once(true);
    kafka.subscribe(subscription).await.unwrap()
}

fn tokens(deliveries: &[Delivery]) -> Vec<AckToken> {
    deliveries.iter().map(Delivery::token).collect()
}

/// Copies what comes, and returns when nothing does.
async fn copy(member: &mut KafkaSubscriber, target: &Topic, crash_after: usize) {
    let settler = member.settler();
    let mut steps = 0;
    while let Ok(came) = timeout(Duration::from_secs(5), member.recv(50)).await {
        let came = match came {
            Ok(came) => came,
            Err(error) if error.retryable() => continue,
            Err(error) => panic!("{error}"),
        };
        let batch: Vec<_> = came
            .iter()
            .map(|it| Outgoing::new(target.clone(), it.event().unwrap().clone()))
            .collect();
        steps += 1;
        if steps == crash_after {
            // In the middle of a step: it may be stored or not.
            let acks = tokens(&came);
            let step = settler.settle_together(&acks, &batch);
            let _ = timeout(Duration::from_millis(3 * crash_after as u64), step).await;
            return;
        }
        loop {
            match settler.settle_together(&tokens(&came), &batch).await {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Stale => break,
                Err(error) => assert!(error.retryable(), "{error}"),
            }
        }
    }
}

/// Members die amid their steps, one after the other and beside each other.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_copied_once_though_members_die() {
    const EVENTS: usize = 3_000;
    let server = KafkaServer::shared().await;
    let mut config = config(server);
    config.delivery_deadline = Duration::from_secs(5);
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let (source, target) = (topic(&kafka, 4).await, topic(&kafka, 2).await);
    let publisher = kafka.publisher().await.unwrap();
    publish_all(&publisher, &numbered(&source, 0..EVENTS, 50)).await;
    let group = unique_name("group");
    for round in 1..8 {
        let mut first = join_exactly_once(&kafka, &group, &source).await;
        let mut second = join_exactly_once(&kafka, &group, &source).await;
        tokio::join!(
            copy(&mut first, &target, round),
            copy(&mut second, &target, round + 2)
        );
    }
    let mut last = join_exactly_once(&kafka, &group, &source).await;
    let end = deadline();
    // What a dead member left undecided may keep the last one waiting.
    while lag(&kafka, &group, &source).await > 0 {
        assert!(Instant::now() < end, "the last member gets no further");
        copy(&mut last, &target, usize::MAX).await;
    }
    last.close(deadline()).await.unwrap();
    let mut came: Vec<usize> = ids(&kafka, &target, EVENTS)
        .await
        .iter()
        .map(|id| id.parse().unwrap())
        .collect();
    came.sort_unstable();
    assert_eq!(came, (0..EVENTS).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_would_jump_over_an_unsettled_event_is_refused() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let (source, target) = (topic(&kafka, 1).await, topic(&kafka, 1).await);
    let publisher = kafka.publisher().await.unwrap();
    publish_all(&publisher, &numbered(&source, 0..10, 1)).await;
    let group = unique_name("group");
    let mut member = join_exactly_once(&kafka, &group, &source).await;
    let mut came = Vec::new();
    while came.len() < 10 {
        came.extend(recv(&mut member, 10 - came.len()).await);
    }
    let batch = numbered(&target, 0..1, 1);
    let settler = member.settler();
    let error = settler
        .settle_together(&tokens(&came[5..]), &batch)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Config, Effect::NotApplied)
    );
    settler
        .settle_together(&tokens(&came), &batch)
        .await
        .unwrap();
    member.close(deadline()).await.unwrap();
    assert_eq!(ids(&kafka, &target, 1).await, ["0"]);
}

/// The markers at the end of a transaction take offsets that nobody is delivered.
#[tokio::test(flavor = "multi_thread")]
async fn lag_goes_to_zero_over_the_markers_of_transactions() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let topic = topic(&kafka, 1).await;
    let publisher = kafka.publisher().await.unwrap();
    let group = unique_name("group");
    let mut member = join(&kafka, &group, &topic).await;
    for number in 0..3 {
        let batch = numbered(&topic, number * 10..number * 10 + 10, 1);
        publisher.publish_together(&batch).await.unwrap();
    }
    let settler = member.settler();
    let mut ids = BTreeSet::new();
    while ids.len() < 30 {
        let came = recv(&mut member, 100).await;
        ids.extend(came.iter().map(|it| it.event().unwrap().id().to_owned()));
        let acks: Vec<_> = came
            .iter()
            .map(|it| (it.token(), Settlement::Ack))
            .collect();
        settler.settle(&acks).await;
    }
    let end = deadline();
    loop {
        let lag = lag(&kafka, &group, &topic).await;
        if lag == 0 {
            break;
        }
        assert!(Instant::now() < end, "lag is {lag}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    member.close(deadline()).await.unwrap();
}

/// What a process that was killed leaves until the broker gives its transaction up, after longer
/// than a question may take.
#[tokio::test(flavor = "multi_thread")]
async fn lag_is_told_while_a_transaction_over_the_group_is_undecided() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let topic = topic(&kafka, 1).await;
    let publisher = kafka.publisher().await.unwrap();
    publish_all(&publisher, &numbered(&topic, 0..10, 1)).await;
    let group = unique_name("group");
    let mut raw = ClientConfig::new();
    raw.set("bootstrap.servers", server.brokers());
    let member: BaseConsumer = raw.clone().set("group.id", &group).create().unwrap();
    let producer: ThreadedProducer<DefaultProducerContext> = raw
        .set("transactional.id", unique_name("killed"))
        .create()
        .unwrap();
    tokio::task::spawn_blocking(move || {
        let within = Duration::from_secs(20);
        producer.init_transactions(within).unwrap();
        producer.begin_transaction().unwrap();
        let mut read = TopicPartitionList::new();
        read.add_partition_offset(topic.name(), 0, Offset::Offset(4))
            .unwrap();
        let metadata = member.group_metadata().unwrap();
        producer
            .send_offsets_to_transaction(&read, &metadata, within)
            .unwrap();
        let runtime = tokio::runtime::Handle::current();
        assert_eq!(runtime.block_on(lag(&kafka, &group, &topic)), 10);
        producer.commit_transaction(within).unwrap();
        assert_eq!(runtime.block_on(lag(&kafka, &group, &topic)), 6);
    })
    .await
    .unwrap();
}

/// A publisher has a bounded number of producers, whatever the number of its callers.
#[tokio::test(flavor = "multi_thread")]
async fn many_transactions_at_once_all_are_stored() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let topic = topic(&kafka, 4).await;
    let publisher = Arc::new(kafka.publisher().await.unwrap());
    let callers = (0..20).map(|number| {
        let (publisher, topic) = (Arc::clone(&publisher), topic.clone());
        tokio::spawn(async move {
            let batch = numbered(&topic, number * 10..number * 10 + 10, 5);
            publisher.publish_together(&batch).await.unwrap();
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    publisher.close(deadline()).await.unwrap();
    let mut came: Vec<usize> = ids(&kafka, &topic, 200)
        .await
        .iter()
        .map(|id| id.parse().unwrap())
        .collect();
    came.sort_unstable();
    assert_eq!(came, (0..200).collect::<Vec<_>>());
}
