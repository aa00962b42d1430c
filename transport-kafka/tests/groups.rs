//! Groups: partitions that move between members, a reader that pauses.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use polybus_core::topic::{TopicPart, TopicPattern};
use polybus_core::transport::{
    Admin, Delivery, Settlement, Settler, Start, Subscriber, Subscription, TopicSpec, Transport,
};
use polybus_core::{ErrorKind, Timestamp, Topic};
use polybus_kafka::{KafkaPublisher, KafkaSubscriber, KafkaTransport};
use polybus_test_support::{KafkaServer, unique_name};
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// A member that handles what it gets until told to leave.
async fn work(
    mut member: KafkaSubscriber,
    counts: Arc<Mutex<Counts>>,
    handled: Arc<AtomicUsize>,
    mut leave: oneshot::Receiver<()>,
) {
    let settler = member.settler();
    loop {
        let deliveries = tokio::select! {
            deliveries = member.recv(500) => deliveries.unwrap(),
            _ = &mut leave => break,
        };
        // What belongs to somebody else by now is given back unhandled.
        let current = |delivery: &&Delivery| settler.is_current(delivery.token());
        let (mine, others): (Vec<_>, Vec<_>) = deliveries.iter().partition(current);
        let mut counted = counts.lock().await;
        mine.iter().for_each(|delivery| counted.note(delivery));
        drop(counted);
        handled.fetch_add(mine.len(), Ordering::SeqCst);
        let released = others.iter().map(|d| (d.token(), Settlement::Release));
        let acked = mine.iter().map(|d| (d.token(), Settlement::Ack));
        let settlements: Vec<_> = acked.chain(released).collect();
        for result in settler.settle(&settlements).await {
            result.unwrap();
        }
    }
    member.close(deadline()).await.unwrap();
}

/// A member at work, and what ends it.
struct Worker {
    leave: oneshot::Sender<()>,
    handled: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Worker {
    async fn join(
        kafka: &KafkaTransport,
        group: &str,
        topic: &Topic,
        all: &Arc<Mutex<Counts>>,
    ) -> Self {
        let member = join(kafka, group, topic).await;
        let handled = Arc::new(AtomicUsize::new(0));
        let (leave, told) = oneshot::channel();
        let task = tokio::spawn(work(member, Arc::clone(all), Arc::clone(&handled), told));
        Self {
            leave,
            handled,
            task,
        }
    }

    /// Waits until it has handled some more events.
    async fn goes_on(&self) {
        let until = self.handled.load(Ordering::SeqCst) + 500;
        timeout(PATIENCE, async {
            while self.handled.load(Ordering::SeqCst) < until {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("every member gets its share");
    }

    async fn leave(self) {
        self.leave.send(()).unwrap();
        self.task.await.unwrap();
    }
}

/// How fast events are published while members come and go.
#[derive(Clone, Copy)]
enum Load {
    /// About 10,000 a second: enough that something is always under way.
    Steady,
    /// As fast as the broker takes them: members are always behind, every queue is full.
    Full,
}

/// Publishes until told to stop. Returns how many.
async fn publish_until(
    publisher: KafkaPublisher,
    topic: Topic,
    load: Load,
    stop: Arc<AtomicBool>,
) -> usize {
    let mut published = 0;
    let (batch, pause) = match load {
        Load::Steady => (100, Duration::from_millis(10)),
        Load::Full => (2_000, Duration::ZERO),
    };
    while !stop.load(Ordering::SeqCst) {
        let events = numbered(&topic, published..published + batch, 100);
        publish_all(&publisher, &events).await;
        published += batch;
        sleep(pause).await;
    }
    published
}

/// Members join and leave while events flow.
async fn members_come_and_go(kafka: KafkaTransport, load: Load) {
    let topic = topic(&kafka, 8).await;
    let group = unique_name("group");
    let all = Arc::new(Mutex::new(Counts::default()));
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = kafka.publisher().await.unwrap();
    let publishing = publish_until(publisher, topic.clone(), load, Arc::clone(&stop));
    let publishing = tokio::spawn(publishing);
    let first = Worker::join(&kafka, &group, &topic, &all).await;
    first.goes_on().await;
    let second = Worker::join(&kafka, &group, &topic, &all).await;
    second.goes_on().await;
    let third = Worker::join(&kafka, &group, &topic, &all).await;
    third.goes_on().await;
    first.leave().await;
    second.goes_on().await;
    let fourth = Worker::join(&kafka, &group, &topic, &all).await;
    fourth.goes_on().await;
    third.leave().await;
    second.leave().await;
    fourth.goes_on().await;
    stop.store(true, Ordering::SeqCst);
    let published = publishing.await.unwrap();
    timeout(PATIENCE, async {
        while all.lock().await.different() < published {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("every event is handled");
    fourth.leave().await;

    assert_eq!(all.lock().await.wrong(published), []);
    let lag = kafka.admin().lag(&group, &[topic]).await.unwrap();
    assert!(lag[0].is_zero(), "{lag:?}");
}

/// A client whose members are of one of the three protocols.
async fn connect_as(protocol: Option<(&str, &str)>) -> KafkaTransport {
    let config = config(KafkaServer::shared().await);
    let config = match protocol {
        None => config,
        Some((name, value)) => config.property(name, value),
    };
    KafkaTransport::connect(config).await.unwrap()
}

const RANGE: Option<(&str, &str)> = Some(("partition.assignment.strategy", "range"));
const KIP_848: Option<(&str, &str)> = Some(("group.protocol", "consumer"));

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missing_or_doubled_when_members_come_and_go() {
    members_come_and_go(connect_as(None).await, Load::Steady).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_holds_where_every_partition_is_revoked_each_time() {
    members_come_and_go(connect_as(RANGE).await, Load::Steady).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_holds_for_the_protocol_of_kip_848() {
    members_come_and_go(connect_as(KIP_848).await, Load::Steady).await;
}

/// One after the other: each takes all there is of the machine.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_holds_for_each_protocol_under_full_load() {
    for protocol in [None, RANGE, KIP_848] {
        members_come_and_go(connect_as(protocol).await, Load::Full).await;
    }
}

/// The client throws a member out that does not poll for `max.poll.interval.ms`. A reader that
/// pauses for longer keeps its place, and a new member still gets its share meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_pauses_keeps_its_place_and_holds_up_nobody() {
    const EVENTS: usize = 5_000;
    let server = KafkaServer::shared().await;
    let mut config = config(server).property("max.poll.interval.ms", "6000");
    config.buffer_events = 10;
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, 2).await;
    let group = unique_name("group");
    let publisher = kafka.publisher().await.unwrap();
    publish_all(&publisher, &numbered(&topic, 0..EVENTS, 100)).await;
    let mut paused = join(&kafka, &group, &topic).await;
    let mut counts = Counts::default();
    handle(&mut paused, &mut counts, 1).await;
    let held = recv(&mut paused, 1).await;
    // Not a wait for something: the pause is what is tested.
    sleep(Duration::from_secs(8)).await;
    assert!(paused.settler().is_current(held[0].token()));
    let settler = paused.settler();
    let settled = settler.settle(&[(held[0].token(), Settlement::Ack)]).await;
    settled.into_iter().for_each(|result| result.unwrap());
    counts.note(&held[0]);

    let mut other = join(&kafka, &group, &topic).await;
    let so_far = counts.different();
    handle(&mut other, &mut counts, so_far + 100).await;
    other.close(deadline()).await.unwrap();
    handle(&mut paused, &mut counts, EVENTS).await;
    paused.close(deadline()).await.unwrap();
    assert_eq!(counts.wrong(EVENTS), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsettled_event_holds_up_its_partition_at_the_limit_and_no_other() {
    const EVENTS: usize = 4_000;
    let server = KafkaServer::shared().await;
    let mut config = config(server);
    config.unsettled_limit = 100;
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, 2).await;
    let publisher = kafka.publisher().await.unwrap();
    publish_all(&publisher, &numbered(&topic, 0..EVENTS, 1_000)).await;
    let mut member = join(&kafka, &unique_name("group"), &topic).await;
    let settler = member.settler();
    let held = recv(&mut member, 1).await.remove(0);
    let partition = held.position().partition();
    let (mut same, mut other) = (vec![held.position().offset()], 0);
    while let Ok(deliveries) = timeout(Duration::from_secs(2), member.recv(100)).await {
        let deliveries = deliveries.unwrap();
        for delivery in &deliveries {
            match delivery.position().partition() == partition {
                true => same.push(delivery.position().offset()),
                false => other += 1,
            }
        }
        let acks: Vec<_> = deliveries
            .iter()
            .map(|d| (d.token(), Settlement::Ack))
            .collect();
        settler.settle(&acks).await;
    }
    let early = same.len();
    assert!(early <= 100 + 500, "bounded: {early} of the held partition");
    assert!(other > 1_600, "{other} of the other partition");
    settler.settle(&[(held.token(), Settlement::Ack)]).await;
    while same.len() + other < EVENTS {
        let deliveries = recv(&mut member, 100).await;
        same.extend(deliveries.iter().map(|d| d.position().offset()));
        let acks: Vec<_> = deliveries
            .iter()
            .map(|d| (d.token(), Settlement::Ack))
            .collect();
        settler.settle(&acks).await;
    }
    let all: Vec<_> = (0..).take(same.len()).collect();
    assert_eq!(same, all, "each once, in order");
}

/// A partition is handed over although something of it is never settled; that comes again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_settled_in_time_goes_to_the_next_owner() {
    let server = KafkaServer::shared().await;
    let mut config = config(server).property("partition.assignment.strategy", "range");
    config.drain_deadline = Duration::from_millis(300);
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, 1).await;
    let group = unique_name("group");
    let publisher = kafka.publisher().await.unwrap();
    publish_all(&publisher, &numbered(&topic, 0..3, 1)).await;
    let mut first = join(&kafka, &group, &topic).await;
    let mut held = Vec::new();
    while held.len() < 3 {
        held.extend(recv(&mut first, 3).await);
    }
    let settler = first.settler();
    settler.settle(&[(held[0].token(), Settlement::Ack)]).await;
    // Members share by their ids, which are made up: join until the partition has moved.
    let mut others = Vec::new();
    while settler.is_current(held[1].token()) {
        others.push(join(&kafka, &group, &topic).await);
        assert!(others.len() < 30, "the partition never moves");
        sleep(Duration::from_millis(500)).await;
    }
    first.close(deadline()).await.unwrap();
    let results = settler
        .settle(&[
            (held[1].token(), Settlement::Ack),
            (held[2].token(), Settlement::Release),
        ])
        .await;
    for result in results {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Stale);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let receiving = others.iter_mut().map(|other| {
        let stop = Arc::clone(&stop);
        async move {
            let mut ids = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let Ok(deliveries) = timeout(Duration::from_millis(100), other.recv(10)).await
                else {
                    continue;
                };
                let deliveries = deliveries.unwrap();
                ids.extend(
                    deliveries
                        .iter()
                        .map(|d| d.event().unwrap().id().to_owned()),
                );
                if ids.len() >= 2 {
                    stop.store(true, Ordering::SeqCst);
                }
            }
            ids
        }
    });
    let received = timeout(PATIENCE, futures::future::join_all(receiving)).await;
    let mut ids: Vec<String> = received.unwrap().into_iter().flatten().collect();
    ids.dedup();
    assert_eq!(ids, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_on_the_server_before_subscribe_returns() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let publisher = kafka.publisher().await.unwrap();
    for (start, seen_again) in [(Start::Now, 5), (Start::Beginning, 15)] {
        let topic = topic(&kafka, 3).await;
        let group = unique_name("group");
        publish_all(&publisher, &numbered(&topic, 0..10, 10)).await;
        let subscription = Subscription::new(group.as_str(), [topic.clone()]).start(start);
        let member = kafka.subscribe(subscription).await.unwrap();
        publish_all(&publisher, &numbered(&topic, 10..15, 10)).await;
        // It dies before it has read anything; the next one would start somewhere else.
        drop(member);
        let other = match start {
            Start::Now => Start::Beginning,
            _ => Start::Now,
        };
        let subscription = Subscription::new(group.as_str(), [topic.clone()]).start(other);
        let mut member = kafka.subscribe(subscription).await.unwrap();
        let mut counts = Counts::default();
        handle(&mut member, &mut counts, seen_again).await;
        assert_eq!(counts.different(), seen_again, "{start:?}");
        member.close(deadline()).await.unwrap();
    }
}

/// A member with other topics joins a group that has members: then only members may write the
/// group's position.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_holds_for_a_topic_that_is_new_to_a_living_group() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let publisher = kafka.publisher().await.unwrap();
    let (old, new) = (topic(&kafka, 2).await, topic(&kafka, 2).await);
    let group = unique_name("group");
    let _first = join(&kafka, &group, &old).await;
    publish_all(&publisher, &numbered(&new, 0..10, 10)).await;
    let subscription = Subscription::new(group.as_str(), [new.clone()]).start(Start::Now);
    let mut second = kafka.subscribe(subscription).await.unwrap();
    let waiting = kafka.admin().lag(&group, std::slice::from_ref(&new)).await;
    assert_eq!(waiting.unwrap()[0].waiting, 0);
    publish_all(&publisher, &numbered(&new, 10..15, 10)).await;
    let mut ids = Vec::new();
    while ids.len() < 5 {
        let deliveries = recv(&mut second, 10).await;
        ids.extend(
            deliveries
                .iter()
                .map(|d| d.event().unwrap().id().to_owned()),
        );
    }
    ids.sort();
    assert_eq!(ids, ["10", "11", "12", "13", "14"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_fit_a_pattern_are_found_also_when_there_are_none_yet() {
    let server = KafkaServer::shared().await;
    let mut config = config(server);
    config.discovery_interval = Duration::from_millis(500);
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let prefix = unique_name("found");
    let pattern = TopicPattern::new([TopicPart::Fixed(format!("{prefix}.")), TopicPart::Segment]);
    let subscription = Subscription::new(unique_name("group"), [])
        .patterns([pattern])
        .start(Start::Now);
    let mut member = kafka.subscribe(subscription).await.unwrap();
    let publisher = kafka.publisher().await.unwrap();
    let mut topics = Vec::new();
    for name in ["a", "b.c", "b"] {
        let topic = Topic::new(format!("{prefix}.{name}"));
        let spec = TopicSpec::new(topic.name()).partitions(2);
        kafka.admin().ensure_topics(&[spec]).await.unwrap();
        // Before the member can know of it: it is read from its beginning.
        publish_all(&publisher, &numbered(&topic, 0..5, 5)).await;
        topics.push(topic);
    }
    let mut seen = Vec::new();
    while seen.len() < 10 {
        let deliveries = recv(&mut member, 10).await;
        seen.extend(deliveries.iter().map(|d| d.topic().name().to_owned()));
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen, [topics[0].name(), topics[2].name()]);
    member.close(deadline()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscribe_that_is_given_up_leaves_no_member() {
    let server = KafkaServer::shared().await;
    let kafka = connect(server).await;
    let topic = topic(&kafka, 1).await;
    let group = unique_name("group");
    let subscribe = join(&kafka, &group, &topic);
    assert!(timeout(Duration::from_millis(1), subscribe).await.is_err());
    // Its partition is free at once, without waiting for a session to end.
    let publisher = kafka.publisher().await.unwrap();
    publish_all(&publisher, &numbered(&topic, 0..3, 1)).await;
    let mut member = join(&kafka, &group, &topic).await;
    let mut counts = Counts::default();
    handle(&mut member, &mut counts, 3).await;
    assert_eq!(counts.wrong(3), []);
    member.close(deadline()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_for_whom_there_is_no_partition_joins_and_waits() {
    let server = KafkaServer::shared().await;
    for protocol in ["classic", "consumer"] {
        let config = config(server).property("group.protocol", protocol);
        let kafka = KafkaTransport::connect(config).await.unwrap();
        let topic = topic(&kafka, 1).await;
        let group = unique_name("group");
        let first = join(&kafka, &group, &topic).await;
        let mut second = join(&kafka, &group, &topic).await;
        let publisher = kafka.publisher().await.unwrap();
        publish_all(&publisher, &numbered(&topic, 0..3, 1)).await;
        first.close(deadline()).await.unwrap();
        let mut counts = Counts::default();
        handle(&mut second, &mut counts, 3).await;
        assert_eq!(counts.wrong(3), [], "{protocol}");
        second.close(deadline()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_moved_by_time_and_not_under_its_members_in_either_protocol() {
    for protocol in [None, KIP_848] {
        let kafka = connect_as(protocol).await;
        let topic = topic(&kafka, 2).await;
        let group = unique_name("group");
        let publisher = kafka.publisher().await.unwrap();
        publish_all(&publisher, &numbered(&topic, 0..10, 10)).await;
        sleep(Duration::from_millis(50)).await;
        let between = Timestamp::now();
        publish_all(&publisher, &numbered(&topic, 10..20, 10)).await;
        let mut member = join(&kafka, &group, &topic).await;
        handle(&mut member, &mut Counts::default(), 20).await;
        let back = async || {
            let topics = std::slice::from_ref(&topic);
            let to = Start::time(between);
            kafka.admin().reset(&group, topics, to).await
        };
        let refused = back().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InUse, "{refused}");
        member.close(deadline()).await.unwrap();
        back().await.unwrap();
        let mut member = join(&kafka, &group, &topic).await;
        let mut ids = Vec::new();
        while ids.len() < 10 {
            let deliveries = recv(&mut member, 10).await;
            let id = |delivery: &Delivery| delivery.event().unwrap().id().to_owned();
            ids.extend(deliveries.iter().map(id));
        }
        ids.sort();
        let after: Vec<_> = (10..20).map(|id| id.to_string()).collect();
        assert_eq!(ids, after);
        member.close(deadline()).await.unwrap();
    }
}
