//! Brokers that are away, die or answer wrongly.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use common::*;
use polybus_core::transport::{
    Admin, Delivery, Outcome, Outgoing, Publisher, Settlement, Settler, Start, Subscriber,
    Subscription, TopicSpec, Transport,
};
use polybus_core::{Effect, ErrorKind, Event, Topic};
use polybus_kafka::{KafkaConfig, KafkaTransport};
use polybus_test_support::{KafkaServer, free_port, unique_name};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::time::{Instant, timeout};

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_broker_fails_within_the_connect_deadline_and_is_named() {
    let address = format!("127.0.0.1:{}", free_port());
    let mut config = KafkaConfig::new([address.as_str()]);
    config.connect_deadline = Duration::from_millis(300);
    let connect = timeout(Duration::from_secs(20), KafkaTransport::connect(config));
    let error = connect.await.expect("bounded").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.retryable());
    assert!(error.to_string().contains(&address), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_property_is_named_at_connect() {
    let config = KafkaConfig::new(["127.0.0.1:1"]).property("no.such.thing", "hunter2");
    let error = KafkaTransport::connect(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = format!("{error:?}");
    assert!(
        text.contains("no.such.thing") && !text.contains("hunter2"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_told_of_by_every_call() {
    let server = KafkaServer::shared().await;
    let mut config = config(server);
    config.delivery_deadline = Duration::from_secs(20);
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let missing = Topic::new(unique_name("missing"));
    let group = unique_name("group");
    let subscription = Subscription::new(group.as_str(), [missing.clone()]);
    let error = kafka.subscribe(subscription).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicNotFound);
    assert_eq!(error.topic(), Some(missing.name()));
    let admin = kafka.admin();
    let described = admin.describe(std::slice::from_ref(&missing)).await;
    assert_eq!(described.unwrap(), [None]);
    let error = admin
        .lag(&group, std::slice::from_ref(&missing))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicNotFound);
    assert_eq!(error.topic(), Some(missing.name()));

    let publisher = kafka.publisher().await.unwrap();
    let batch = numbered(&missing, 0..2, 1);
    for outcome in publisher.publish(&batch).await {
        match outcome {
            Outcome::Rejected(error) => assert_eq!(error.kind(), ErrorKind::TopicNotFound),
            outcome => panic!("{outcome:?}"),
        }
    }
    // Made since: the same publisher takes note of it.
    let spec = TopicSpec::new(missing.name());
    admin.ensure_topics(&[spec]).await.unwrap();
    publish_all(&publisher, &batch).await;
}

/// What came, in order per key: what comes again may be older, what comes first may not.
#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    last_of_key: HashMap<String, usize>,
}

impl Seen {
    fn note(&mut self, delivery: &Delivery) {
        let event = delivery.event().unwrap();
        let number: usize = event.id().parse().unwrap();
        let is_first = self.ids.insert(event.id().to_owned());
        let key = event.key().unwrap().to_owned();
        let last = self.last_of_key.entry(key).or_default();
        assert!(!is_first || number >= *last, "{number} after {last}");
        *last = number.max(*last);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_flow_over_a_broker_that_is_killed() {
    const EVENTS: usize = 20_000;
    let server = KafkaServer::start().await.unwrap();
    let mut config = config(&server);
    config.delivery_deadline = Duration::from_secs(60);
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, 4).await;
    let group = unique_name("group");
    let publisher = kafka.publisher().await.unwrap();
    let mut member = join(&kafka, &group, &topic).await;
    let publishing = {
        let topic = topic.clone();
        tokio::spawn(async move {
            let mut outcomes = Vec::new();
            for start in (0..EVENTS).step_by(100) {
                let batch = numbered(&topic, start..start + 100, 10);
                outcomes.extend(publisher.publish(&batch).await);
            }
            outcomes
        })
    };
    let mut seen = Seen::default();
    let mut killed = false;
    let settler = member.settler();
    let end = deadline() + PATIENCE;
    while seen.ids.len() < EVENTS {
        assert!(Instant::now() < end, "{} of {EVENTS}", seen.ids.len());
        if seen.ids.len() > EVENTS / 4 && !killed {
            killed = true;
            server.kill().await.unwrap();
            server.restart().await.unwrap();
        }
        let deliveries = match timeout(PATIENCE, member.recv(500)).await.unwrap() {
            Ok(deliveries) => deliveries,
            Err(error) if error.retryable() => continue,
            Err(error) => panic!("{error}"),
        };
        deliveries.iter().for_each(|delivery| seen.note(delivery));
        let acks = deliveries.iter().map(|d| (d.token(), Settlement::Ack));
        settler.settle(&acks.collect::<Vec<_>>()).await;
    }
    // An idempotent producer that is given the time stores each event, and stores it once.
    for outcome in publishing.await.unwrap() {
        outcome.into_result().unwrap();
    }
    let description = kafka.admin().describe(std::slice::from_ref(&topic)).await;
    assert_eq!(
        description.unwrap()[0].as_ref().unwrap().events,
        EVENTS as u64
    );
    member.close(deadline()).await.unwrap();
}

/// The group gives a member up that it has not heard of for the session timeout, here because
/// the broker was away itself. What was settled by then was settled.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_settled_while_the_broker_was_away_does_not_come_again() {
    let server = KafkaServer::start().await.unwrap();
    let mut config = config(&server);
    config.commit_interval = Duration::from_secs(3600);
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, 1).await;
    let group = unique_name("group");
    let publisher = kafka.publisher().await.unwrap();
    publish_all(&publisher, &numbered(&topic, 0..10, 1)).await;
    let mut member = join(&kafka, &group, &topic).await;
    let settler = member.settler();
    let mut deliveries = Vec::new();
    while deliveries.len() < 10 {
        deliveries.extend(recv(&mut member, 10).await);
    }
    server.kill().await.unwrap();
    // All but the last one.
    let done = deliveries[..9].iter().map(|d| (d.token(), Settlement::Ack));
    for result in settler.settle(&done.collect::<Vec<_>>()).await {
        result.unwrap();
    }
    let end = deadline();
    while settler.is_current(deliveries[9].token()) {
        assert!(Instant::now() < end, "the partition is never lost");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.restart().await.unwrap();
    publish_all(&publisher, &numbered(&topic, 10..11, 1)).await;
    let mut ids = Vec::new();
    while ids.len() < 2 {
        match timeout(PATIENCE, member.recv(10)).await.unwrap() {
            Ok(came) => ids.extend(came.iter().map(|d| d.event().unwrap().id().to_owned())),
            Err(error) => assert!(error.retryable(), "{error}"),
        }
    }
    assert_eq!(ids, ["9", "10"]);
    let lag = kafka.admin().lag(&group, &[topic]).await.unwrap();
    assert_eq!(lag[0].waiting, 2, "written on its return");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_the_outcome_is_unknown_within_the_deadline() {
    let server = KafkaServer::start().await.unwrap();
    let mut config = config(&server);
    config.delivery_deadline = Duration::from_secs(2);
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, 1).await;
    let publisher = kafka.publisher().await.unwrap();
    publish_all(&publisher, &numbered(&topic, 0..1, 1)).await;
    server.pause().await.unwrap();
    let batch = numbered(&topic, 1..3, 1);
    let outcomes = timeout(Duration::from_secs(20), publisher.publish(&batch)).await;
    let closed = publisher
        .close(Instant::now() + Duration::from_secs(1))
        .await;
    server.resume().await.unwrap();
    for outcome in outcomes.expect("bounded") {
        match outcome {
            Outcome::Unknown(error) => {
                assert_eq!(error.kind(), ErrorKind::Timeout);
                assert_eq!(error.effect(), Effect::Unknown);
                assert_eq!(error.topic(), Some(topic.name()));
            }
            outcome => panic!("{outcome:?}"),
        }
    }
    if let Err(error) = closed {
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
    let refused = publisher
        .publish(&numbered(&topic, 3..4, 1))
        .await
        .remove(0);
    match refused {
        Outcome::Rejected(error) => assert_eq!(error.kind(), ErrorKind::Closed),
        outcome => panic!("{outcome:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_makes_publishing_wait_and_keeps_the_order() {
    const EVENTS: usize = 20_000;
    let server = KafkaServer::shared().await;
    let mut config = config(server);
    config.publish_queue_events = 10;
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, 1).await;
    let publisher = kafka.publisher().await.unwrap();
    let halves = [0..EVENTS / 2, EVENTS / 2..EVENTS].map(|r| numbered(&topic, r, 1));
    // Both want room at once.
    let (first, second) =
        tokio::join!(publisher.publish(&halves[0]), publisher.publish(&halves[1]));
    for outcomes in [first, second] {
        let offsets: Vec<u64> = outcomes
            .into_iter()
            .map(|outcome| outcome.into_result().unwrap().offset())
            .collect();
        assert!(offsets.is_sorted());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_stays_full_rejects_what_never_was_in_it() {
    let server = KafkaServer::start().await.unwrap();
    let mut config = config(&server);
    config.publish_queue_events = 3;
    config.delivery_deadline = Duration::from_secs(2);
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, 1).await;
    let publisher = kafka.publisher().await.unwrap();
    publish_all(&publisher, &numbered(&topic, 0..1, 1)).await;
    server.pause().await.unwrap();
    let outcomes = publisher.publish(&numbered(&topic, 0..5, 1)).await;
    server.resume().await.unwrap();
    let kinds: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Outcome::Unknown(_) => "unknown",
            Outcome::Rejected(error) if error.kind() == ErrorKind::Full => "full",
            outcome => panic!("{outcome:?}"),
        })
        .collect();
    assert_eq!(kinds, ["unknown", "unknown", "unknown", "full", "full"]);
}

/// A mock broker, because a real one does not lose its memory on demand.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_failed_for_good_is_replaced() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("fatal", 1, 1).unwrap();
    let mut config = KafkaConfig::new([cluster.bootstrap_servers()]);
    config.delivery_deadline = Duration::from_secs(10);
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = Topic::new("fatal");
    let publisher = kafka.publisher().await.unwrap();
    publish_all(&publisher, &numbered(&topic, 0..1, 1)).await;
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER],
    );
    match publisher
        .publish(&numbered(&topic, 1..2, 1))
        .await
        .remove(0)
    {
        Outcome::Unknown(_) => {}
        outcome => panic!("{outcome:?}"),
    }
    cluster.clear_request_errors(RDKafkaApiKey::Produce);
    publish_all(&publisher, &numbered(&topic, 2..5, 1)).await;
    publisher.close(deadline()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_refuses_says_so() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("refused", 1, 1).unwrap();
    let config = KafkaConfig::new([cluster.bootstrap_servers()]);
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = Topic::new("refused");
    let publisher = kafka.publisher().await.unwrap();
    for (code, kind, effect) in [
        (
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            ErrorKind::Unauthorized,
            Effect::NotApplied,
        ),
        (
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
            ErrorKind::TooLarge,
            Effect::NotApplied,
        ),
        (
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD,
            ErrorKind::InvalidEvent,
            Effect::NotApplied,
        ),
    ] {
        // What is too large is sent once more, alone.
        let requests = if kind == ErrorKind::TooLarge { 2 } else { 1 };
        cluster.request_errors(RDKafkaApiKey::Produce, &vec![code; requests]);
        let event = Event::builder("a").source("s").build().unwrap();
        let batch = [Outgoing::new(topic.clone(), event)];
        let outcome = publisher.publish(&batch).await.remove(0);
        let error = outcome.into_result().unwrap_err();
        assert_eq!((error.kind(), error.effect()), (kind, effect), "{error}");
        assert_eq!(error.operation(), Some("publish"));
    }
    publish_all(&publisher, &numbered(&topic, 0..1, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_is_made_while_the_broker_is_away_fails_in_time() {
    let server = KafkaServer::start().await.unwrap();
    let mut config = config(&server);
    config.connect_deadline = Duration::from_secs(2);
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, 1).await;
    server.kill().await.unwrap();
    let subscription = Subscription::new(unique_name("group"), [topic.clone()]);
    let subscribe = kafka.subscribe(subscription.start(Start::Now));
    let error = timeout(PATIENCE, subscribe).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    assert!(error.to_string().contains(server.brokers()), "{error}");
    let error = timeout(PATIENCE, kafka.publisher())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    let health = timeout(PATIENCE, kafka.admin().health()).await.unwrap();
    assert_eq!(health.unwrap_err().kind(), ErrorKind::Connect);
}
