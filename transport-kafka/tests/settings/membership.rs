//! Members that keep their place.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use polybus_core::transport::{
    Delivery, Publisher, Settlement, Settler, Subscriber, Subscription, Transport,
};
use polybus_core::{ErrorKind, Topic};
use polybus_kafka::{GroupProtocol, KafkaConfig, KafkaPublisher, KafkaSubscriber, KafkaTransport};
use polybus_test_support::{KafkaOptions, KafkaServer, unique_name};
use tokio::time::timeout;

use crate::common::*;

const PARTITIONS: u32 = 6;

/// How often the server has shared out the partitions of a group, by its log.
fn rebalances(server: &KafkaServer, group: &str) -> usize {
    let log = server.directory().unwrap().join("kafka.log");
    let log = std::fs::read_to_string(log).unwrap();
    let of_the_group = log.lines().filter(|line| line.contains(group));
    let signs = [
        "Preparing to rebalance",
        "Bumped group epoch",
        "bumped group epoch",
    ];
    of_the_group
        .filter(|line| signs.iter().any(|sign| line.contains(sign)))
        .count()
}

async fn member(kafka: &KafkaTransport, group: &str, topic: &Topic, name: &str) -> KafkaSubscriber {
    let subscription = Subscription::new(group, [topic.clone()]).member(name);
    kafka.subscribe(subscription).await.unwrap()
}

/// Takes and acknowledges events until none has come for a moment. Returns their partitions.
async fn take_what_there_is(member: &mut KafkaSubscriber) -> BTreeSet<u32> {
    let mut partitions = BTreeSet::new();
    while let Ok(deliveries) = timeout(Duration::from_millis(500), member.recv(1_000)).await {
        partitions.extend(acknowledge(member, &deliveries.unwrap()).await);
    }
    partitions
}

/// Takes and acknowledges a number of events. Returns their partitions.
async fn take(member: &mut KafkaSubscriber, count: usize) -> BTreeSet<u32> {
    let (mut partitions, mut taken) = (BTreeSet::new(), 0);
    while taken < count {
        let deliveries = recv(member, count - taken).await;
        taken += deliveries.len();
        partitions.extend(acknowledge(member, &deliveries).await);
    }
    partitions
}

async fn acknowledge(member: &KafkaSubscriber, deliveries: &[Delivery]) -> Vec<u32> {
    let acks = deliveries.iter().map(|it| (it.token(), Settlement::Ack));
    let acks: Vec<_> = acks.collect();
    for result in member.settler().settle(&acks).await {
        result.unwrap();
    }
    let partitions = deliveries.iter().map(|it| it.position().partition());
    partitions.collect()
}

/// Publishes events to every partition. Returns how many there are now in each.
async fn publish_to_all(publisher: &KafkaPublisher, topic: &Topic) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    for outcome in publisher.publish(&numbered(topic, 0..200, 200)).await {
        let position = outcome.into_result().unwrap();
        *counts.entry(position.partition()).or_default() += 1;
    }
    assert_eq!(counts.len(), PARTITIONS as usize);
    counts
}

/// The shares of two members, as soon as both have one and the group is at rest.
async fn shares(
    publisher: &KafkaPublisher,
    topic: &Topic,
    members: [&mut KafkaSubscriber; 2],
) -> [BTreeSet<u32>; 2] {
    let [one, two] = members;
    for _ in 0..60 {
        publish_to_all(publisher, topic).await;
        let (one, two) = tokio::join!(take_what_there_is(one), take_what_there_is(two));
        let is_shared = one.is_disjoint(&two) && one.len() + two.len() == PARTITIONS as usize;
        if is_shared && !one.is_empty() && !two.is_empty() {
            return [one, two];
        }
    }
    panic!("the group does not come to rest");
}

/// Two members at rest, and what they read.
struct Pair {
    kafka: KafkaTransport,
    publisher: KafkaPublisher,
    topic: Topic,
    group: String,
    staying: KafkaSubscriber,
    going: KafkaSubscriber,
    shares: [BTreeSet<u32>; 2],
}

impl Pair {
    async fn join(config: KafkaConfig) -> Self {
        let kafka = KafkaTransport::connect(config).await.unwrap();
        let topic = topic(&kafka, PARTITIONS).await;
        let group = unique_name("group");
        let publisher = kafka.publisher().await.unwrap();
        let mut staying = member(&kafka, &group, &topic, "staying").await;
        let mut going = member(&kafka, &group, &topic, "going").await;
        let shares = shares(&publisher, &topic, [&mut staying, &mut going]).await;
        Self {
            kafka,
            publisher,
            topic,
            group,
            staying,
            going,
            shares,
        }
    }

    /// Both read what is published to their partitions, and nothing else.
    async fn read_their_shares(&mut self, published: &BTreeMap<u32, usize>) {
        let count = |share: &BTreeSet<u32>| share.iter().map(|it| published[it]).sum::<usize>();
        let [one, two] = &self.shares;
        assert_eq!(take(&mut self.staying, count(one)).await, *one);
        assert_eq!(take(&mut self.going, count(two)).await, *two);
    }
}

/// A member goes and comes back under its name. Returns how often the partitions were shared out
/// for that.
async fn comes_back(config: KafkaConfig, server: &KafkaServer, closes: bool) -> usize {
    let mut pair = Pair::join(config).await;
    let before = rebalances(server, &pair.group);
    assert!(
        before >= 2,
        "the log tells of the two that joined: {before}"
    );
    match closes {
        true => pair.going.close(deadline()).await.unwrap(),
        false => drop(pair.going),
    }
    // What comes for it meanwhile waits for it.
    let published = publish_to_all(&pair.publisher, &pair.topic).await;
    pair.going = member(&pair.kafka, &pair.group, &pair.topic, "going").await;
    pair.read_their_shares(&published).await;
    let published = publish_to_all(&pair.publisher, &pair.topic).await;
    pair.read_their_shares(&published).await;
    let for_that = rebalances(server, &pair.group) - before;
    pair.staying.close(deadline()).await.unwrap();
    pair.going.close(deadline()).await.unwrap();
    for_that
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_that_comes_back_in_time_keeps_its_place_and_disturbs_nobody() {
    let server = KafkaOptions::new().start().await.unwrap();
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        for closes in [true, false] {
            let mut config = KafkaConfig::new([server.brokers()]);
            config.group_protocol = protocol;
            config.static_membership = true;
            config.session_timeout = Duration::from_secs(120);
            let rebalances = comes_back(config, &server, closes).await;
            assert_eq!(rebalances, 0, "{protocol:?}, closed: {closes}");
        }
    }
}

/// So that what is proved above is no accident of how it is counted.
#[tokio::test(flavor = "multi_thread")]
async fn any_other_member_that_goes_is_a_reason_to_share_out_anew() {
    let server = KafkaOptions::new().start().await.unwrap();
    let pair = Pair::join(config(&server)).await;
    let before = rebalances(&server, &pair.group);
    pair.going.close(deadline()).await.unwrap();
    let back = member(&pair.kafka, &pair.group, &pair.topic, "going").await;
    let for_that = rebalances(&server, &pair.group) - before;
    assert!(for_that >= 1, "nobody was told");
    back.close(deadline()).await.unwrap();
    pair.staying.close(deadline()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_the_transport_serves_where_a_subscription_has_none() {
    let server = KafkaServer::shared().await;
    let mut config = config(server);
    config.static_membership = true;
    let nameless = KafkaTransport::connect(config.clone()).await.unwrap();
    let topic = topic(&nameless, 1).await;
    let group = unique_name("group");
    let subscription = Subscription::new(group.as_str(), [topic.clone()]);
    let error = nameless.subscribe(subscription).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.to_string().contains("`member`"), "{error}");

    config.member = Some("process-7".into());
    let named = KafkaTransport::connect(config).await.unwrap();
    let member = join(&named, &group, &topic).await;
    let arguments = ["--describe", "--members", "--group", &group];
    let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    let members = server.run_tool(class, &arguments, "").await.unwrap();
    assert!(members.contains("process-7"), "{members}");
    member.close(deadline()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_of_two_members_with_one_name_is_told_of_the_second() {
    let server = KafkaServer::shared().await;
    let mut config = config(server);
    config.static_membership = true;
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, 2).await;
    let group = unique_name("group");
    let mut first = member(&kafka, &group, &topic, "twin").await;
    let second = member(&kafka, &group, &topic, "twin").await;
    let error = timeout(PATIENCE, first.recv(1)).await.unwrap().unwrap_err();
    assert!(!error.retryable(), "{error:?}");
    assert!(error.to_string().contains("`member`"), "{error}");
    second.close(deadline()).await.unwrap();
}
