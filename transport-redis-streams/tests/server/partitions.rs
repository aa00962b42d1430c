//! Topics that are divided into partitions, each with one leased owner.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use polybus_core::transport::{
    Admin, Delivery, Outgoing, Publisher, Settlement, Settler, Subscriber, Subscription, TopicSpec,
    Transport,
};
use polybus_core::{ErrorKind, Event, Topic};
use polybus_redis_streams::{RedisConfig, RedisSubscriber, RedisTransport};
use polybus_test_support::{RedisCluster, RedisServer, unique_name};
use tokio::time::timeout;

use crate::support::{
    PATIENCE, Raw, ack, close, connect, ensure_quiet, eventually, ids, publish, recv_again, settle,
    take,
};

const GROUP: &str = "g";

/// Members that are to die: others get what they had after this.
const SOON: Duration = Duration::from_secs(1);

fn topic(partitions: u32) -> Topic {
    Topic::new(unique_name("orders")).with_partitions(partitions)
}

fn subscription(topic: &Topic) -> Subscription {
    Subscription::new(GROUP, [topic.clone()])
}

async fn join(transport: &RedisTransport, topic: &Topic) -> RedisSubscriber {
    transport.subscribe(subscription(topic)).await.unwrap()
}

async fn join_mortal(transport: &RedisTransport, topic: &Topic) -> RedisSubscriber {
    let subscription = subscription(topic).takeover_after(SOON);
    transport.subscribe(subscription).await.unwrap()
}

/// Numbered events, with as many keys.
fn keyed(topic: &Topic, numbers: std::ops::Range<usize>, keys: usize) -> Vec<Outgoing> {
    numbers
        .map(|number| {
            let key = format!("key-{}", number % keys);
            let event = Event::builder("test.numbered").source("test");
            let event = event.id(format!("{number:05}").as_str()).key(key);
            Outgoing::new(topic.clone(), event.build().unwrap())
        })
        .collect()
}

/// Who has the lease of each partition: what stands in it.
async fn leases(raw: &Raw, topic: &Topic) -> Vec<Option<String>> {
    let mut found = Vec::new();
    for stream in streams(topic) {
        let lease = format!("{}:lease:{GROUP}", stream.name());
        found.push(raw.words(&["GET", &lease]).await);
    }
    found
}

fn streams(topic: &Topic) -> Vec<Topic> {
    let partitions = 0..topic.partitions().unwrap();
    let name = |partition| format!("{{{}:{partition}}}", topic.name());
    partitions.map(|it| Topic::new(name(it))).collect()
}

/// Waits until a member has so many partitions.
async fn owns(raw: &Raw, topic: &Topic, member: &RedisSubscriber, count: usize) {
    eventually("the partitions are shared out", async || {
        let leases = leases(raw, topic).await;
        let of = |lease: &&Option<String>| {
            let lease = lease.as_deref().unwrap_or_default();
            lease.ends_with(&format!(":{}", member.member()))
        };
        leases.iter().filter(of).count() == count
    })
    .await;
}

/// The ids of each key, in the order in which they came.
fn by_key(deliveries: &[Delivery]) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for delivery in deliveries {
        let event = delivery.event().unwrap();
        let key = event.key().unwrap_or_default().to_owned();
        found.entry(key).or_default().push(event.id().to_owned());
    }
    found
}

fn assert_in_order(deliveries: &[Delivery]) {
    for (key, ids) in by_key(deliveries) {
        assert!(ids.is_sorted_by(|one, two| one < two), "{key}: {ids:?}");
    }
}

/// Receives until so many have come to either of two members, and acknowledges them.
async fn work(one: &mut RedisSubscriber, two: &mut RedisSubscriber, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    let working = async {
        while all.len() < count {
            let (first, batch) = tokio::select! {
                batch = one.recv(50) => (true, batch.unwrap()),
                batch = two.recv(50) => (false, batch.unwrap()),
            };
            let of = if first { &*one } else { &*two };
            for result in ack(of, &batch).await {
                result.unwrap();
            }
            all.extend(batch);
        }
    };
    timeout(PATIENCE, working).await.expect("all of them come");
    all
}

#[tokio::test]
async fn events_of_a_key_are_in_one_stream_and_their_position_says_which() {
    let server = RedisServer::shared().await;
    let (transport, raw) = (connect(server).await, Raw::connect(server).await);
    let topic = topic(4);
    let mut batch = keyed(&topic, 0..200, 20);
    let keyless = Event::builder("t").source("s").id("keyless").build();
    batch.push(Outgoing::new(topic.clone(), keyless.unwrap()));
    let publisher = transport.publisher().await.unwrap();
    let outcomes = publisher.publish(&batch).await;
    let together = publisher.publish_together(&batch).await.unwrap();
    let mut partitions: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    let mut counts = [0_u64; 4];
    for ((outgoing, outcome), again) in batch.iter().zip(outcomes).zip(together) {
        let position = outcome.into_result().unwrap();
        assert_eq!(position.partition(), again.partition());
        counts[position.partition() as usize] += 2;
        let key = outgoing.event().unwrap().key().unwrap_or_default();
        let of_key = partitions.entry(key.to_owned()).or_default();
        of_key.insert(position.partition());
    }
    assert!(
        partitions.values().all(|it| it.len() == 1),
        "{partitions:?}"
    );
    for (stream, count) in streams(&topic).iter().zip(counts) {
        assert!(count > 0, "{stream} was used");
        assert_eq!(raw.words::<u64>(&["XLEN", stream.name()]).await, count);
    }
    assert!(!raw.words::<bool>(&["EXISTS", topic.name()]).await);
}

#[tokio::test]
async fn state_and_contents_of_a_topic_are_those_of_its_partitions() {
    let server = RedisServer::shared().await;
    let transport = connect(server).await;
    let topic = topic(3);
    let admin = transport.admin();
    let spec = TopicSpec::new(topic.name()).partitions(3);
    let describe = async || {
        let described = admin.describe(std::slice::from_ref(&topic)).await.unwrap();
        described[0].as_ref().map(|it| (it.partitions, it.events))
    };
    let lag = async || {
        admin
            .lag(GROUP, std::slice::from_ref(&topic))
            .await
            .unwrap()[0]
    };
    assert_eq!(describe().await, None);
    admin.ensure_topics(&[spec]).await.unwrap();
    assert_eq!(describe().await, Some((3, 0)));
    publish(&transport, &keyed(&topic, 0..90, 30)).await;
    assert_eq!(describe().await, Some((3, 90)));
    assert_eq!(lag().await.waiting, 90);

    let mut member = join(&transport, &topic).await;
    let taken = take(&mut member, 90).await;
    assert_eq!((lag().await.waiting, lag().await.pending), (0, 90));
    ack(&member, &taken).await;
    assert!(lag().await.is_zero());
    close(member).await;

    let first = admin.browse(&topic, &[], 40).await.unwrap();
    let mut after: BTreeMap<u32, _> = BTreeMap::new();
    for delivery in &first {
        after.insert(delivery.position().partition(), delivery.position());
    }
    let after: Vec<_> = after.into_values().collect();
    let rest = admin.browse(&topic, &after, 1_000).await.unwrap();
    assert_eq!((first.len(), rest.len()), (40, 50));
    let all: BTreeSet<String> = ids(&first).into_iter().chain(ids(&rest)).collect();
    assert_eq!(all.len(), 90);
    admin.purge(&topic, &after).await.unwrap();
    assert_eq!(describe().await, Some((3, 50)));
}

#[tokio::test]
async fn who_joins_gets_half_and_nothing_is_doubled_or_overtaken() {
    let server = RedisServer::shared().await;
    let (transport, raw) = (connect(server).await, Raw::connect(server).await);
    let topic = topic(8);
    let mut first = join(&transport, &topic).await;
    owns(&raw, &topic, &first, 8).await;
    publish(&transport, &keyed(&topic, 0..500, 25)).await;
    let mut all = take(&mut first, 100).await;
    // In hand, while the partitions are to be handed over.
    let mut second = join(&transport, &topic).await;
    for result in ack(&first, &all).await {
        result.unwrap();
    }
    publish(&transport, &keyed(&topic, 500..1_000, 25)).await;
    all.extend(work(&mut first, &mut second, 900).await);
    owns(&raw, &topic, &first, 4).await;
    owns(&raw, &topic, &second, 4).await;
    assert_eq!(by_key(&all).values().map(Vec::len).sum::<usize>(), 1_000);
    assert_in_order(&all);
    assert!(all.iter().all(|delivery| delivery.attempt() == 1));

    // Who leaves gives back at once.
    close(first).await;
    owns(&raw, &topic, &second, 8).await;
    publish(&transport, &keyed(&topic, 1_000..1_100, 25)).await;
    let last = take(&mut second, 100).await;
    assert_in_order(&last);
    ack(&second, &last).await;
    close(second).await;
    assert!(leases(&raw, &topic).await.iter().all(Option::is_none));
    for stream in streams(&topic) {
        assert_eq!(raw.pending(&stream, GROUP, None).await, 0);
        assert_eq!(raw.members(&stream, GROUP).await, [""; 0], "{stream}");
    }
}

#[tokio::test]
async fn what_a_dead_member_had_comes_first_and_in_order() {
    let server = RedisServer::shared().await;
    let (transport, raw) = (connect(server).await, Raw::connect(server).await);
    let topic = topic(2);
    let mut dead = join_mortal(&transport, &topic).await;
    publish(&transport, &keyed(&topic, 0..40, 10)).await;
    let had = take(&mut dead, 40).await;
    ack(&dead, &had[..5]).await;
    let mut heir = join_mortal(&transport, &topic).await;
    // Not handed over: it dies while its events are in hand.
    drop(dead);
    publish(&transport, &keyed(&topic, 40..60, 10)).await;
    let came = take(&mut heir, 55).await;
    assert_in_order(&came);
    for delivery in &came {
        let is_new = delivery.event().unwrap().id() >= "00040";
        assert_eq!(delivery.attempt(), if is_new { 1 } else { 2 });
    }
    let acknowledged: BTreeSet<String> = ids(&had[..5]).into_iter().collect();
    assert!(ids(&came).iter().all(|id| !acknowledged.contains(id)));
    owns(&raw, &topic, &heir, 2).await;
    close(heir).await;
}

#[tokio::test]
async fn who_lost_its_lease_gets_nothing_settles_nothing_and_begins_nothing() {
    let server = RedisServer::shared().await;
    let (transport, raw) = (connect(server).await, Raw::connect(server).await);
    let topic = topic(1);
    let mut first = join(&transport, &topic).await;
    owns(&raw, &topic, &first, 1).await;
    publish(&transport, &keyed(&topic, 0..10, 1)).await;
    let had = take(&mut first, 10).await;
    // As if it had been halted for longer than the lease: another has it by now.
    let stream = streams(&topic).remove(0);
    let lease = format!("{}:lease:{GROUP}", stream.name());
    let () = raw.words(&["SET", &lease, "another"]).await;
    let claim = ["XCLAIM", stream.name(), GROUP, "another", "0"];
    let mut ids: Vec<String> = Vec::new();
    for delivery in &had {
        let position = delivery.position();
        ids.push(format!(
            "{}-{}",
            position.offset(),
            position.sequence().unwrap()
        ));
    }
    let claim: Vec<&str> = claim
        .into_iter()
        .chain(ids.iter().map(String::as_str))
        .collect();
    let _: redis::Value = raw.words(&claim).await;
    for result in ack(&first, &had).await {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Stale);
    }
    assert_eq!(raw.pending(&stream, GROUP, Some("another")).await, 10);
    // Its read waits on the server, and must bring it nothing.
    publish(&transport, &keyed(&topic, 10..20, 1)).await;
    ensure_quiet(&mut first).await;
    let settler = first.settler();
    assert!(had.iter().all(|it| !settler.is_current(it.token())));
    assert_eq!(raw.pending(&stream, GROUP, Some(first.member())).await, 0);

    let () = raw.words(&["DEL", &lease]).await;
    let all = take(&mut first, 20).await;
    assert_in_order(&all);
    assert!(
        settle(&first, &had, Settlement::Ack)
            .await
            .iter()
            .all(Result::is_err)
    );
    for result in ack(&first, &all).await {
        result.unwrap();
    }
    close(first).await;
}

#[tokio::test]
async fn a_partition_is_handed_over_when_what_is_in_hand_is_settled() {
    let server = RedisServer::shared().await;
    let (transport, raw) = (connect(server).await, Raw::connect(server).await);
    let topic = topic(2);
    let mut slow = join(&transport, &topic).await;
    owns(&raw, &topic, &slow, 2).await;
    publish(&transport, &keyed(&topic, 0..40, 20)).await;
    let in_hand = take(&mut slow, 40).await;
    let mut second = join(&transport, &topic).await;
    let settler = slow.settler();
    let going = async || {
        let is_going = |it: &&Delivery| !settler.is_current(it.token());
        in_hand.iter().filter(is_going).count()
    };
    // Nothing of it is begun any more, and the other waits.
    eventually("notice is given", async || going().await > 0).await;
    ensure_quiet(&mut second).await;
    owns(&raw, &topic, &slow, 2).await;
    publish(&transport, &keyed(&topic, 40..80, 20)).await;
    for result in ack(&slow, &in_hand).await {
        result.unwrap();
    }
    let rest = work(&mut slow, &mut second, 40).await;
    owns(&raw, &topic, &slow, 1).await;
    owns(&raw, &topic, &second, 1).await;
    assert_in_order(&rest);
    assert!(rest.iter().all(|delivery| delivery.attempt() == 1));
    close(slow).await;
    close(second).await;
}

#[tokio::test]
async fn what_is_given_back_unhandled_in_a_handover_goes_to_the_next_owner() {
    let server = RedisServer::shared().await;
    let transport = connect(server).await;
    let topic = topic(2);
    let mut first = join(&transport, &topic).await;
    publish(&transport, &keyed(&topic, 0..40, 20)).await;
    let in_hand = take(&mut first, 40).await;
    let mut second = join(&transport, &topic).await;
    let settler = first.settler();
    eventually("notice is given", async || {
        in_hand.iter().any(|it| !settler.is_current(it.token()))
    })
    .await;
    let (kept, going): (Vec<_>, Vec<_>) = in_hand
        .into_iter()
        .partition(|it| settler.is_current(it.token()));
    for result in settle(&first, &going, Settlement::Release).await {
        result.unwrap();
    }
    let came = take(&mut second, going.len()).await;
    assert_eq!(ids(&came), ids(&going));
    ack(&second, &came).await;
    for result in ack(&first, &kept).await {
        result.unwrap();
    }
    ensure_quiet(&mut first).await;
    close(first).await;
    close(second).await;
}

#[tokio::test]
async fn a_wiped_server_is_read_from_the_beginning_again() {
    let server = RedisServer::start().await.unwrap();
    let (transport, raw) = (connect(&server).await, Raw::connect(&server).await);
    let topic = topic(3);
    let mut member = join(&transport, &topic).await;
    publish(&transport, &keyed(&topic, 0..30, 10)).await;
    let before = take(&mut member, 30).await;
    ack(&member, &before).await;
    let () = raw.call("FLUSHALL").await;
    publish(&transport, &keyed(&topic, 30..60, 10)).await;
    let mut after = Vec::new();
    while after.len() < 30 {
        let batch = recv_again(&mut member, 30).await;
        ack(&member, &batch).await;
        after.extend(batch);
    }
    assert_eq!(by_key(&after).values().map(Vec::len).sum::<usize>(), 30);
    assert_in_order(&after);
    close(member).await;
}

#[tokio::test]
async fn partitioned_and_plain_topics_are_read_together() {
    let server = RedisServer::shared().await;
    let transport = connect(server).await;
    let (divided, plain) = (topic(2), crate::support::topic());
    let both = Subscription::new(GROUP, [plain.clone(), divided.clone()]);
    let mut member = transport.subscribe(both).await.unwrap();
    publish(&transport, &keyed(&divided, 0..20, 5)).await;
    publish(&transport, &keyed(&plain, 0..20, 5)).await;
    let all = take(&mut member, 40).await;
    let of = |topic: &Topic| all.iter().filter(|it| it.topic() == topic).count();
    assert_eq!((of(&divided), of(&plain)), (20, 20));
    for result in ack(&member, &all).await {
        result.unwrap();
    }
    close(member).await;
}

#[tokio::test]
async fn partitions_spread_over_a_cluster() {
    let cluster = RedisCluster::start().await.unwrap();
    let config = RedisConfig::with_nodes(cluster.urls());
    let transport = RedisTransport::connect(config).await.unwrap();
    let topic = topic(12);
    let mut first = join(&transport, &topic).await;
    publish(&transport, &keyed(&topic, 0..600, 60)).await;
    for node in cluster.nodes() {
        let node = Raw::connect(node).await;
        let size: u64 = node.words(&["DBSIZE"]).await;
        assert!(size > 0, "every node has some of the streams");
    }
    let mut all = take(&mut first, 300).await;
    ack(&first, &all).await;
    let mut second = join(&transport, &topic).await;
    all.extend(work(&mut first, &mut second, 300).await);
    publish(&transport, &keyed(&topic, 600..900, 60)).await;
    all.extend(work(&mut first, &mut second, 300).await);
    assert_eq!(by_key(&all).values().map(Vec::len).sum::<usize>(), 900);
    assert_in_order(&all);
    // In one step only what is in one slot.
    let last = publish_and_take(&transport, &topic, &mut first, &mut second).await;
    let letter = Outgoing::new(Topic::new(unique_name("letters")), event_of(&last));
    let forwarded = settle_by_forward(&first, &second, &last, letter).await;
    assert_eq!(forwarded.unwrap_err().kind(), ErrorKind::Unsupported);
    close(first).await;
    close(second).await;
}

fn event_of(delivery: &Delivery) -> Event {
    delivery.event().unwrap().clone()
}

async fn publish_and_take(
    transport: &RedisTransport,
    topic: &Topic,
    one: &mut RedisSubscriber,
    two: &mut RedisSubscriber,
) -> Delivery {
    publish(transport, &keyed(topic, 900..901, 60)).await;
    let taken = tokio::select! {
        batch = one.recv(1) => batch.unwrap(),
        batch = two.recv(1) => batch.unwrap(),
    };
    taken.into_iter().next().unwrap()
}

/// Forwards by the member that has the delivery.
async fn settle_by_forward(
    one: &RedisSubscriber,
    two: &RedisSubscriber,
    delivery: &Delivery,
    letter: Outgoing,
) -> polybus_core::Result<()> {
    let settlers = [one.settler(), two.settler()];
    let has = settlers.iter().find(|it| it.is_current(delivery.token()));
    let forwarded = has.unwrap().forward(&[(delivery.token(), letter)]).await;
    forwarded.into_iter().next().unwrap()
}
