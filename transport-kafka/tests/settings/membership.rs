//! Members that keep their place.

use std::collections::BTreeSet;
use std::time::Duration;

use polybus_core::transport::{Settlement, Settler, Subscriber, Subscription, Transport};
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
    let signs = ["Preparing to rebalance", "Bumped group epoch", "bumped group epoch"];
    of_the_group
        .filter(|line| signs.iter().any(|sign| line.contains(sign)))
        .count()
}

async fn member(kafka: &KafkaTransport, group: &str, topic: &Topic, name: &str) -> KafkaSubscriber {
    let subscription = Subscription::new(group, [topic.clone()]).member(name);
    kafka.subscribe(subscription).await.unwrap()
}

/// Takes and acknowledges what there is, until nothing has come for a while. Returns the partitions.
async fn partitions_of(member: &mut KafkaSubscriber) -> BTreeSet<u32> {
    let settler = member.settler();
    let mut partitions = BTreeSet::new();
    while let Ok(deliveries) = timeout(Duration::from_secs(2), member.recv(1_000)).await {
        let deliveries = deliveries.unwrap();
        partitions.extend(deliveries.iter().map(|it| it.position().partition()));
        let acks: Vec<_> = deliveries.iter().map(|it| (it.token(), Settlement::Ack)).collect();
        for result in settler.settle(&acks).await {
            result.unwrap();
        }
    }
    partitions
}

async fn publish_to_all(publisher: &KafkaPublisher, topic: &Topic) {
    publish_all(publisher, &numbered(topic, 0..200, 200)).await;
}

/// The shares of two members, as soon as both have one and the group is at rest.
async fn shares(
    publisher: &KafkaPublisher,
    topic: &Topic,
    members: [&mut KafkaSubscriber; 2],
) -> [BTreeSet<u32>; 2] {
    let [one, two] = members;
    for _ in 0..20 {
        publish_to_all(publisher, topic).await;
        let (one, two) = tokio::join!(partitions_of(one), partitions_of(two));
        let is_shared = one.is_disjoint(&two) && one.len() + two.len() == PARTITIONS as usize;
        if is_shared && !one.is_empty() && !two.is_empty() {
            return [one, two];
        }
    }
    panic!("the group does not come to rest");
}

/// A member goes and comes back under its name. Returns how often the partitions were shared out
/// for that; the shares are the same again.
async fn comes_back(config: KafkaConfig, server: &KafkaServer, closes: bool) -> usize {
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, PARTITIONS).await;
    let group = unique_name("group");
    let publisher = kafka.publisher().await.unwrap();
    let mut staying = member(&kafka, &group, &topic, "staying").await;
    let mut going = member(&kafka, &group, &topic, "going").await;
    let before = shares(&publisher, &topic, [&mut staying, &mut going]).await;
    let shared_out = rebalances(server, &group);
    assert!(shared_out >= 2, "the log tells of the two that joined");

    match closes {
        true => going.close(deadline()).await.unwrap(),
        false => drop(going),
    }
    // What comes meanwhile waits for the member, or goes to the other.
    publish_to_all(&publisher, &topic).await;
    let meanwhile = partitions_of(&mut staying).await;
    let mut back = member(&kafka, &group, &topic, "going").await;
    let (waited, _) = tokio::join!(partitions_of(&mut back), partitions_of(&mut staying));
    let for_that = rebalances(server, &group) - shared_out;
    if for_that == 0 {
        assert_eq!(meanwhile, before[0], "nobody read its partitions");
        assert_eq!(waited, before[1], "it goes on with its own");
        let after = shares(&publisher, &topic, [&mut staying, &mut back]).await;
        assert_eq!(after, before);
    }
    staying.close(deadline()).await.unwrap();
    back.close(deadline()).await.unwrap();
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
    // The log would tell: any other member that goes is a reason to share out anew.
    let rebalances = comes_back(config(&server), &server, true).await;
    assert!(rebalances >= 2, "{rebalances}");
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
