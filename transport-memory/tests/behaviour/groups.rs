//! Groups, their members, their starts and their patterns.

use polybus_core::Timestamp;
use polybus_core::topic::{TopicPart, TopicPattern};
use polybus_core::transport::Start;

use super::*;

fn pattern(prefix: &str) -> TopicPattern {
    TopicPattern::new([TopicPart::Fixed(prefix.to_owned()), TopicPart::Segment])
}

async fn subscribe_from(
    transport: &MemoryTransport,
    group: &str,
    start: Start,
) -> MemorySubscriber {
    let subscription = Subscription::new(group, [Topic::new("t")]).start(start);
    transport.subscribe(subscription).await.unwrap()
}

async fn subscribe_to(transport: &MemoryTransport, prefix: &str, start: Start) -> MemorySubscriber {
    let subscription = Subscription::new("g", []).patterns([pattern(prefix)]);
    let subscription = subscription.start(start);
    transport.subscribe(subscription).await.unwrap()
}

#[tokio::test]
async fn every_group_gets_every_event_and_its_members_share_them() {
    let transport = MemoryTransport::new();
    let mut one = subscribe(&transport, "one", &["t"]).await;
    let mut two = subscribe(&transport, "two", &["t"]).await;
    let mut other_two = subscribe(&transport, "two", &["t"]).await;
    publish(&transport, "t", &["1", "2", "3"]).await;
    assert_eq!(ids(&one.recv(10).await.unwrap()), ["1", "2", "3"]);
    assert_eq!(ids(&two.recv(2).await.unwrap()), ["1", "2"]);
    assert_eq!(ids(&other_two.recv(2).await.unwrap()), ["3"]);
}

#[tokio::test]
async fn clones_are_clients_of_one_broker_and_new_transports_are_not() {
    let transport = MemoryTransport::new();
    let mut subscriber = subscribe(&transport.clone().named("other"), "g", &["t"]).await;
    publish(&transport, "t", &["1"]).await;
    assert_eq!(ids(&subscriber.recv(1).await.unwrap()), ["1"]);
    assert!(MemoryTransport::new().events("t").is_empty());
}

#[tokio::test]
async fn a_group_starts_where_it_is_told() {
    let transport = MemoryTransport::new();
    publish(&transport, "t", &["1", "2"]).await;
    let between = Timestamp::now();
    publish(&transport, "t", &["3"]).await;
    let starts = [
        ("beginning", Start::Beginning, &["1", "2", "3", "4"][..]),
        ("time", Start::time(between), &["3", "4"]),
        ("now", Start::Now, &["4"]),
    ];
    let mut subscribers = Vec::new();
    for (group, start, expected) in starts {
        let subscriber = subscribe_from(&transport, group, start).await;
        subscribers.push((subscriber, expected));
    }
    publish(&transport, "t", &["4"]).await;
    for (mut subscriber, expected) in subscribers {
        assert_eq!(ids(&subscriber.recv(10).await.unwrap()), expected);
    }
}

#[tokio::test]
async fn a_group_with_a_position_goes_on_from_it_whatever_the_start() {
    let transport = MemoryTransport::new();
    publish(&transport, "t", &["1", "2", "3"]).await;
    let mut first = subscribe_from(&transport, "g", Start::Beginning).await;
    let deliveries = first.recv(2).await.unwrap();
    ack(&first, &deliveries).await;
    drop(first);
    let mut second = subscribe_from(&transport, "g", Start::Now).await;
    assert_eq!(ids(&second.recv(10).await.unwrap()), ["3"]);
}

#[tokio::test]
async fn what_is_accepted_after_subscribe_reaches_the_group_though_the_member_died_unread() {
    let transport = MemoryTransport::new();
    publish(&transport, "t", &["before"]).await;
    drop(subscribe_from(&transport, "g", Start::Now).await);
    publish(&transport, "t", &["after"]).await;
    let mut next = subscribe_from(&transport, "g", Start::Now).await;
    let deliveries = next.recv(10).await.unwrap();
    assert_eq!(ids(&deliveries), ["after"]);
    assert_eq!(attempts(&deliveries), [1]);
}

#[tokio::test]
async fn topics_that_appear_later_are_read_from_their_beginning() {
    let transport = MemoryTransport::new();
    publish(&transport, "events.old", &["old"]).await;
    let mut subscriber = subscribe_to(&transport, "events.", Start::Now).await;
    publish(&transport, "events.new", &["new"]).await;
    publish(&transport, "events.old", &["newer"]).await;
    publish(&transport, "other.new", &["other"]).await;
    let deliveries = subscriber.recv(10).await.unwrap();
    let mut received: Vec<_> = deliveries
        .iter()
        .zip(ids(&deliveries))
        .map(|(delivery, id)| (delivery.topic().name(), id))
        .collect();
    received.sort_unstable();
    assert_eq!(received, [("events.new", "new"), ("events.old", "newer")]);
}

#[tokio::test]
async fn a_topic_that_appears_while_a_group_has_no_member_is_still_the_groups() {
    let transport = MemoryTransport::new();
    drop(subscribe_to(&transport, "events.", Start::Now).await);
    publish(&transport, "events.new", &["1"]).await;
    let mut subscriber = subscribe_to(&transport, "events.", Start::Now).await;
    assert_eq!(ids(&subscriber.recv(10).await.unwrap()), ["1"]);
}

#[tokio::test]
async fn a_topic_that_is_named_twice_or_fits_a_pattern_too_is_read_once() {
    let transport = MemoryTransport::new();
    publish(&transport, "events.a", &["1"]).await;
    let topic = Topic::new("events.a");
    let subscription = Subscription::new("g", [topic.clone(), topic])
        .patterns([pattern("events."), TopicPattern::new([TopicPart::Any])]);
    let mut subscriber = transport.subscribe(subscription).await.unwrap();
    assert_eq!(ids(&subscriber.recv(10).await.unwrap()), ["1"]);
    assert!(recv_now(&mut subscriber, 10).await.is_empty());
}

#[tokio::test]
async fn a_key_is_with_one_member_at_a_time() {
    let transport = MemoryTransport::new();
    let mut one = subscribe(&transport, "g", &["t"]).await;
    let mut two = subscribe(&transport, "g", &["t"]).await;
    publish_keyed(&transport, "t", &["1:a", "2:a", "3:b", "4:a"]).await;
    let first = one.recv(1).await.unwrap();
    assert_eq!(ids(&first), ["1"]);
    assert_eq!(ids(&recv_now(&mut two, 10).await), ["3"]);
    ack(&one, &first).await;
    assert_eq!(ids(&recv_now(&mut two, 1).await), ["2"]);
    assert!(recv_now(&mut one, 10).await.is_empty(), "4 comes after 2");
    assert_eq!(ids(&recv_now(&mut two, 10).await), ["4"]);
}

#[tokio::test]
async fn keys_of_different_topics_and_groups_have_nothing_to_do_with_each_other() {
    let transport = MemoryTransport::new();
    let mut one = subscribe(&transport, "g", &["t", "u"]).await;
    let mut two = subscribe(&transport, "g", &["t", "u"]).await;
    let mut other = subscribe(&transport, "h", &["t"]).await;
    publish_keyed(&transport, "t", &["1:a"]).await;
    publish_keyed(&transport, "u", &["2:a"]).await;
    assert_eq!(ids(&recv_now(&mut one, 1).await), ["1"]);
    assert_eq!(ids(&recv_now(&mut two, 1).await), ["2"]);
    assert_eq!(ids(&recv_now(&mut other, 1).await), ["1"]);
}

#[tokio::test]
async fn a_busy_topic_does_not_starve_another() {
    let transport = MemoryTransport::new();
    let mut subscriber = subscribe(&transport, "g", &["busy", "quiet"]).await;
    let busy: Vec<_> = (0..100).map(|_| "busy").collect();
    publish(&transport, "busy", &busy).await;
    publish(&transport, "quiet", &["quiet"]).await;
    let mut received = Vec::new();
    for _ in 0..2 {
        let deliveries = subscriber.recv(10).await.unwrap();
        assert_eq!(deliveries.len(), 10);
        received.extend(ids(&deliveries).iter().map(|id| (*id).to_owned()));
    }
    assert!(received.contains(&"quiet".to_owned()));
}
