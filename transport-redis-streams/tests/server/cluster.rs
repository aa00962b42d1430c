//! Redis Cluster: streams on several nodes, slots that are moved, nodes that die.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use polybus_core::transport::{
    Admin, Outcome, Outgoing, Publisher, Subscription, TopicSpec, Transport,
};
use polybus_core::{Error, ErrorKind, Event, Topic};
use polybus_redis_streams::{RedisConfig, RedisPublisher, RedisSubscriber, RedisTransport};
use polybus_test_support::{Certificates, RedisCluster, RedisServer, free_port, unique_name};
use tokio::time::{Instant, sleep};

use crate::support::{
    Raw, ack, close, count_accepted, events, ids, numbered_ids, publish, recv_again, subscription,
    take,
};

/// A failover takes a few seconds, and what the first attempts find out is waited for.
const FAILOVER: Duration = Duration::from_secs(60);

async fn connect(cluster: &RedisCluster) -> RedisTransport {
    let config = RedisConfig::with_nodes(cluster.urls());
    RedisTransport::connect(config).await.unwrap()
}

/// The nodes themselves, past the transport.
async fn raw_nodes(cluster: &RedisCluster) -> Vec<Raw> {
    let mut nodes = Vec::new();
    for node in cluster.nodes() {
        nodes.push(Raw::connect(node).await);
    }
    nodes
}

/// How often the nodes have answered with an error of this code.
async fn refusals(nodes: &[Raw], code: &str) -> usize {
    let mut count = 0;
    for node in nodes {
        let stats: String = node.call("INFO errorstats").await;
        let prefix = format!("errorstat_{code}:count=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&prefix));
        count += line.map_or(0, |count| count.trim().parse::<usize>().unwrap());
    }
    count
}

async fn slot(node: &Raw, topic: &Topic) -> u16 {
    node.words(&["CLUSTER", "KEYSLOT", topic.name()]).await
}

/// The index of the node that has a slot at first.
fn first_owner(slot: u16) -> usize {
    usize::from(slot) / 5_462
}

/// A topic of the first node, and its slot.
async fn topic_of_first(nodes: &[Raw]) -> (Topic, u16) {
    loop {
        let topic = Topic::new(format!("{{{}}}-events", unique_name("tag")));
        let slot = slot(&nodes[0], &topic).await;
        if first_owner(slot) == 0 {
            return (topic, slot);
        }
    }
}

#[tokio::test]
async fn streams_spread_over_the_nodes_and_nothing_is_sent_across_slots() {
    let cluster = RedisCluster::start().await.unwrap();
    let (transport, nodes) = (connect(&cluster).await, raw_nodes(&cluster).await);
    let prefix = unique_name("spread");
    let mut topics: Vec<Topic> = (0..30)
        .map(|number| Topic::new(format!("{prefix}-{number}")))
        .collect();
    topics.extend((0..10).map(|number| Topic::new(format!("{{{prefix}}}-{number}"))));
    let specs: Vec<TopicSpec> = topics.iter().map(|it| TopicSpec::new(it.name())).collect();
    transport.admin().ensure_topics(&specs).await.unwrap();
    let everywhere = Subscription::new("g", topics.clone());
    let mut subscriber = transport.subscribe(everywhere).await.unwrap();

    // Neighbours in the batch are at different nodes.
    let batch: Vec<Outgoing> = (0..20)
        .flat_map(|number| {
            topics
                .iter()
                .flat_map(move |it| events(it, number..number + 1))
        })
        .collect();
    publish(&transport, &batch).await;
    let mut received: HashMap<String, Vec<String>> = HashMap::new();
    let mut count = 0;
    while count < batch.len() {
        let deliveries = recv_again(&mut subscriber, 1_000).await;
        count += deliveries.len();
        for delivery in &deliveries {
            let id = delivery.event().unwrap().id().to_owned();
            received
                .entry(delivery.topic().to_string())
                .or_default()
                .push(id);
        }
        assert!(
            ack(&subscriber, &deliveries)
                .await
                .iter()
                .all(Result::is_ok)
        );
    }
    for topic in &topics {
        assert_eq!(received[topic.name()], numbered_ids(0..20), "{topic}");
    }
    for lag in transport.admin().lag("g", &topics).await.unwrap() {
        assert_eq!((lag.waiting, lag.pending), (0, 0));
    }
    transport.admin().health().await.unwrap();
    close(subscriber).await;

    let mut tagged = HashSet::new();
    for (index, node) in nodes.iter().enumerate() {
        let keys: Vec<String> = node.call("KEYS *").await;
        assert!(!keys.is_empty(), "node {index} has none of the streams");
        if keys.iter().any(|key| key.starts_with('{')) {
            tagged.insert(index);
        }
    }
    assert_eq!(tagged.len(), 1, "what has one tag is at one node");
    assert_eq!(refusals(&nodes, "CROSSSLOT").await, 0);
}

#[tokio::test]
async fn a_pattern_finds_streams_on_all_nodes() {
    let cluster = RedisCluster::start().await.unwrap();
    let transport = {
        let mut config = RedisConfig::with_nodes(cluster.urls());
        config.discovery_interval = Some(Duration::from_millis(50));
        RedisTransport::connect(config).await.unwrap()
    };
    let prefix = unique_name("found");
    let topics: Vec<Topic> = (0..12)
        .map(|number| Topic::new(format!("{prefix}.{number}")))
        .collect();
    let batch = |topics: &[Topic], number: usize| -> Vec<Outgoing> {
        let one = |topic| events(topic, number..number + 1);
        topics.iter().flat_map(one).collect()
    };
    publish(&transport, &batch(&topics[..6], 0)).await;
    let pattern = polybus_core::topic::TopicPattern::new([
        polybus_core::topic::TopicPart::Fixed(format!("{prefix}.")),
        polybus_core::topic::TopicPart::Segment,
    ]);
    let found = Subscription::new("g", []).patterns([pattern]);
    let mut subscriber = transport.subscribe(found).await.unwrap();
    let first = take(&mut subscriber, 6).await;
    // These appear while the member reads.
    publish(&transport, &batch(&topics[6..], 1)).await;
    let second = take(&mut subscriber, 6).await;
    let from: HashSet<&str> = first
        .iter()
        .chain(&second)
        .map(|it| it.topic().name())
        .collect();
    assert_eq!(from.len(), 12);
    close(subscriber).await;
}

/// What was told of the events of one topic.
#[derive(Default)]
struct Told {
    accepted: Vec<usize>,
    rejected: Vec<(usize, Error)>,
    unknown: Vec<usize>,
}

impl Told {
    fn note(&mut self, numbers: impl Iterator<Item = usize>, outcomes: Vec<Outcome>) {
        for (number, outcome) in numbers.zip(outcomes) {
            match outcome {
                Outcome::Accepted(_) => self.accepted.push(number),
                Outcome::Rejected(error) => self.rejected.push((number, error)),
                Outcome::Unknown(_) => self.unknown.push(number),
            }
        }
    }
}

/// Publishes to a topic, and beside it to another, until told to stop.
async fn publish_until(
    publisher: &RedisPublisher,
    [topic, other]: [&Topic; 2],
    stop: &AtomicBool,
) -> Told {
    let (mut told, mut next) = (Told::default(), 0);
    while !stop.load(Ordering::SeqCst) || told.accepted.len() < 500 {
        let numbers = next..next + 250;
        next = numbers.end;
        let mut batch = Vec::new();
        for number in numbers.clone() {
            batch.extend(events(topic, number..number + 1));
            batch.extend(events(other, number..number + 1));
        }
        let outcomes = publisher.publish(&batch).await;
        assert_eq!(outcomes.len(), batch.len());
        told.note(numbers, outcomes.into_iter().step_by(2).collect());
        if told.accepted.last().is_none_or(|last| last + 1 < next) {
            // A caller's pause before it goes on where a server is away.
            sleep(Duration::from_millis(20)).await;
        }
    }
    told
}

/// Receives until all of these have come; how often each came, in the order of its first coming.
async fn receive_all(subscriber: &mut RedisSubscriber, numbers: &[usize]) -> Vec<String> {
    let mut missing: HashSet<String> = numbers
        .iter()
        .map(|number| format!("event-{number:05}"))
        .collect();
    let mut order = Vec::new();
    let deadline = Instant::now() + FAILOVER;
    while !missing.is_empty() {
        assert!(Instant::now() < deadline, "{} have not come", missing.len());
        let deliveries = recv_again(subscriber, 1_000).await;
        ack(subscriber, &deliveries).await;
        for id in ids(&deliveries) {
            missing.remove(&id);
            order.push(id);
        }
    }
    order
}

#[tokio::test]
async fn slots_that_move_under_load_lose_nothing_and_keep_the_order() {
    let cluster = RedisCluster::start().await.unwrap();
    let (transport, nodes) = (connect(&cluster).await, raw_nodes(&cluster).await);
    let (topic, slot) = topic_of_first(&nodes).await;
    let other = Topic::new(unique_name("other"));
    let publisher = transport.publisher().await.unwrap();
    let mut subscriber = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    let stop = AtomicBool::new(false);
    let moving = async {
        for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 2)] {
            cluster.move_slot(slot, from, to).await.unwrap();
            sleep(Duration::from_millis(30)).await;
        }
        stop.store(true, Ordering::SeqCst);
    };
    let (told, ()) = tokio::join!(publish_until(&publisher, [&topic, &other], &stop), moving);
    for (number, error) in &told.rejected {
        assert!(error.retryable(), "{number}: {error:?}");
    }
    assert!(
        told.unknown.is_empty(),
        "no connection was lost: {:?}",
        told.unknown
    );
    let received = receive_all(&mut subscriber, &told.accepted).await;
    let expected: Vec<String> = told
        .accepted
        .iter()
        .map(|number| format!("event-{number:05}"))
        .collect();
    assert!(received == expected, "not once each, in order");
    close(subscriber).await;
    assert!(refusals(&nodes, "MOVED").await > 0);
    assert_eq!(refusals(&nodes, "CROSSSLOT").await, 0);
}

#[tokio::test]
async fn while_a_slot_is_being_moved_the_node_that_gets_it_is_asked() {
    let cluster = RedisCluster::start().await.unwrap();
    let (transport, nodes) = (connect(&cluster).await, raw_nodes(&cluster).await);
    let (old, slot) = topic_of_first(&nodes).await;
    let tag = old.name().trim_end_matches("-events");
    let new = Topic::new(format!("{tag}-new"));
    publish(&transport, &events(&old, 0..10)).await;
    let mut subscriber = transport.subscribe(subscription("g", &old)).await.unwrap();
    let first = take(&mut subscriber, 10).await;
    ack(&subscriber, &first[..5]).await;

    cluster.begin_move(slot, 0, 1).await.unwrap();
    // What is not at the old node is the new one's.
    publish(&transport, &events(&new, 0..300)).await;
    let mut of_new = transport.subscribe(subscription("g", &new)).await.unwrap();
    let taken = take(&mut of_new, 300).await;
    assert_eq!(ids(&taken), numbered_ids(0..300));
    assert!(ack(&of_new, &taken).await.iter().all(Result::is_ok));
    assert_eq!(
        transport.admin().lag("g", &[new]).await.unwrap()[0].pending,
        0
    );
    assert!(refusals(&nodes, "ASK").await > 0);
    // And what is goes on there, until it is moved with its group and what is pending.
    publish(&transport, &events(&old, 10..20)).await;
    let second = take(&mut subscriber, 10).await;
    cluster.move_keys(slot, 0, 1).await.unwrap();
    assert!(
        ack(&subscriber, &first[5..])
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert!(ack(&subscriber, &second).await.iter().all(Result::is_ok));
    publish(&transport, &events(&old, 20..30)).await;
    assert_eq!(ids(&take(&mut subscriber, 10).await), numbered_ids(20..30));
    cluster.end_move(slot, 0, 1).await.unwrap();
    publish(&transport, &events(&old, 30..40)).await;
    assert_eq!(ids(&take(&mut subscriber, 10).await), numbered_ids(30..40));
    close(of_new).await;
    close(subscriber).await;
}

#[tokio::test]
async fn a_node_that_dies_and_comes_back_loses_nothing() {
    let cluster = RedisCluster::start().await.unwrap();
    let (transport, nodes) = (connect(&cluster).await, raw_nodes(&cluster).await);
    let (topic, _) = topic_of_first(&nodes).await;
    let other = Topic::new(unique_name("other"));
    let publisher = transport.publisher().await.unwrap();
    let mut subscriber = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    let stop = AtomicBool::new(false);
    let dying = async {
        sleep(Duration::from_millis(50)).await;
        cluster.nodes()[0].kill().await.unwrap();
        sleep(Duration::from_millis(1_500)).await;
        cluster.nodes()[0].restart().await.unwrap();
        cluster.agreed().await.unwrap();
        stop.store(true, Ordering::SeqCst);
    };
    let (told, ()) = tokio::join!(publish_until(&publisher, [&topic, &other], &stop), dying);
    assert!(!told.rejected.is_empty());
    for (number, error) in &told.rejected {
        assert!(error.retryable(), "{number}: {error:?}");
    }
    let received = receive_all(&mut subscriber, &told.accepted).await;
    let rejected: HashSet<String> = told
        .rejected
        .iter()
        .map(|(number, _)| format!("event-{number:05}"))
        .collect();
    assert!(received.iter().all(|id| !rejected.contains(id)));
    close(subscriber).await;
}

#[tokio::test]
async fn an_ordered_failover_under_load_loses_nothing_and_an_unordered_one_is_followed() {
    let cluster = RedisCluster::start_with_replicas().await.unwrap();
    let (transport, nodes) = (connect(&cluster).await, raw_nodes(&cluster).await);
    let (topic, _) = topic_of_first(&nodes).await;
    let other = Topic::new(unique_name("other"));
    let publisher = transport.publisher().await.unwrap();
    let mut subscriber = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    let stop = AtomicBool::new(false);
    let failing_over = async {
        sleep(Duration::from_millis(50)).await;
        let _: () = nodes[3].call("CLUSTER FAILOVER").await;
        is_primary(&nodes[3]).await;
        stop.store(true, Ordering::SeqCst);
    };
    let (told, ()) = tokio::join!(
        publish_until(&publisher, [&topic, &other], &stop),
        failing_over
    );
    assert!(told.unknown.is_empty(), "{:?}", told.unknown);
    let received = receive_all(&mut subscriber, &told.accepted).await;
    let mut first_comings = BTreeMap::new();
    for (place, id) in received.iter().enumerate() {
        first_comings.entry(id).or_insert(place);
    }
    // The ids in their order came in their order.
    assert!(first_comings.values().is_sorted());

    // The new primary dies; the one before is its replica by now.
    replicates(&nodes[0]).await;
    cluster.nodes()[3].kill().await.unwrap();
    let number = 90_000;
    let deadline = Instant::now() + FAILOVER;
    loop {
        let outcome = publisher
            .publish(&events(&topic, number..number + 1))
            .await
            .remove(0);
        let Err(error) = outcome.into_result() else {
            break;
        };
        assert!(error.retryable(), "{error:?}");
        assert!(Instant::now() < deadline, "{error:?}");
        sleep(Duration::from_millis(50)).await;
    }
    receive_all(&mut subscriber, &[number]).await;
    close(subscriber).await;
}

async fn is_primary(node: &Raw) {
    crate::support::eventually("the promotion", async || {
        let info: String = node.call("INFO replication").await;
        info.contains("role:master")
    })
    .await;
}

async fn replicates(node: &Raw) {
    crate::support::eventually("the replication", async || {
        let info: String = node.call("INFO replication").await;
        info.contains("role:slave") && info.contains("master_link_status:up")
    })
    .await;
}

#[tokio::test]
async fn a_cluster_is_named_by_its_nodes_and_a_server_by_its_url() {
    let cluster = RedisCluster::start().await.unwrap();
    let server = RedisServer::shared().await;
    let of_cluster = RedisConfig::new(&cluster.urls()[0]);
    let of_server = RedisConfig::with_nodes([server.url()]);
    for (config, key) in [(of_cluster, "`nodes`"), (of_server, "`url`")] {
        let error = RedisTransport::connect(config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert!(!error.retryable());
        assert!(
            error.notes().iter().any(|note| note.contains(key)),
            "{error:?}"
        );
    }
    for url in ["redis://:secret@127.0.0.1:1", "redis://127.0.0.1:1/3"] {
        let error = RedisTransport::connect(RedisConfig::with_nodes([url]))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        assert!(!format!("{error:?}").contains("secret"));
    }
    // A node that is away is passed over.
    let away = format!("redis://127.0.0.1:{}", free_port());
    let config = RedisConfig::with_nodes([away, cluster.urls().remove(2)]);
    let transport = RedisTransport::connect(config).await.unwrap();
    let event = Event::builder("t").source("s").build().unwrap();
    let batch: Vec<Outgoing> = (0..20)
        .map(|number| Outgoing::new(format!("topic-{number}").into(), event.clone()))
        .collect();
    let outcomes = transport.publisher().await.unwrap().publish(&batch).await;
    assert_eq!(count_accepted(&outcomes), 20);
}

#[tokio::test]
async fn a_cluster_is_reached_over_tls() {
    let certificates = Certificates::generate().unwrap();
    let cluster = RedisCluster::start_with_tls(&certificates).await.unwrap();
    let urls = cluster.nodes().iter().filter_map(RedisServer::tls_url);
    let mut config = RedisConfig::with_nodes(urls);
    config.ca_file = Some(certificates.authority());
    config.certificate_file = Some(certificates.client());
    config.key_file = Some(certificates.client_key());
    publish_and_receive(config).await;
}

#[tokio::test]
async fn the_documented_rights_suffice_on_a_cluster() {
    let cluster = RedisCluster::start().await.unwrap();
    for node in raw_nodes(&cluster).await {
        let rights = "ACL SETUSER app on >app-password ~* +@read +@write +@stream +@connection \
            +@transaction +@scripting -@dangerous +cluster|slots";
        let rights: Vec<&str> = rights.split_whitespace().collect();
        let _: () = node.words(&rights).await;
    }
    let mut config = RedisConfig::with_nodes(cluster.urls());
    config.user = Some("app".into());
    config.password = Some("app-password".into());
    publish_and_receive(config).await;
}

/// Publishes to streams of all nodes, and receives from all of them.
async fn publish_and_receive(config: RedisConfig) {
    let transport = RedisTransport::connect(config).await.unwrap();
    let prefix = unique_name("topic");
    let topics: Vec<Topic> = (0..20)
        .map(|number| Topic::new(format!("{prefix}-{number}")))
        .collect();
    let batch: Vec<Outgoing> = topics.iter().flat_map(|it| events(it, 0..1)).collect();
    publish(&transport, &batch).await;
    let mut subscriber = transport
        .subscribe(Subscription::new("g", topics))
        .await
        .unwrap();
    let taken = take(&mut subscriber, 20).await;
    assert!(ack(&subscriber, &taken).await.iter().all(Result::is_ok));
    close(subscriber).await;
}
