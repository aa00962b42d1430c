//! Outcomes, bounds and what is stored.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use polybus_core::transport::{Headers, Position, RawRecord};
use polybus_memory::MemoryConfig;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;

fn small(max_events: usize) -> MemoryTransport {
    let config = MemoryConfig::default().max_events(max_events);
    MemoryTransport::with_config(&config).unwrap()
}

/// A publish that runs beside the test, which waits until it has been polled.
async fn publish_beside(
    transport: &MemoryTransport,
    topic: &str,
    ids: &[&str],
) -> JoinHandle<Vec<Outcome>> {
    let publisher = transport.publisher().await.unwrap();
    let batch: Vec<_> = ids.iter().map(|id| outgoing(topic, id)).collect();
    let publishing = tokio::spawn(async move { publisher.publish(&batch).await });
    tokio::task::yield_now().await;
    publishing
}

fn stored(transport: &MemoryTransport, topic: &str) -> Vec<String> {
    let events = transport.events(topic);
    events.iter().map(|event| event.id().to_owned()).collect()
}

fn headers() -> Headers {
    let one = ("one".into(), Some(Bytes::from_static(b"1")));
    [one, ("null".into(), None)].into_iter().collect()
}

#[tokio::test]
async fn outcomes_are_in_the_order_of_the_input_and_positions_in_that_of_the_topic() {
    let transport = MemoryTransport::new();
    let publisher = transport.publisher().await.unwrap();
    let batch = [outgoing("t", "1"), outgoing("u", "2"), outgoing("t", "3")];
    for round in 0..2 {
        let outcomes = publisher.publish(&batch).await.into_iter();
        let positions: Vec<_> = outcomes.map(|it| it.into_result().unwrap()).collect();
        let expected = [2 * round, round, 2 * round + 1];
        assert_eq!(positions, expected.map(|offset| Position::new(0, offset)));
    }
    assert_eq!(stored(&transport, "t"), ["1", "3", "1", "3"]);
    assert_eq!(transport.topics(), ["t", "u"]);
}

#[tokio::test]
async fn headers_travel_beside_the_event() {
    let transport = MemoryTransport::new();
    publish_all(&transport, &[outgoing("t", "1").with_headers(headers())]).await;
    let mut subscriber = subscribe(&transport, "g", &["t"]).await;
    let deliveries = subscriber.recv(1).await.unwrap();
    assert_eq!(deliveries[0].headers(), &headers());
    assert_eq!(deliveries[0].position(), Position::new(0, 0));
}

#[tokio::test]
async fn a_raw_record_stays_as_it_is_and_comes_as_undecodable() {
    let transport = MemoryTransport::new();
    let bytes = Bytes::from_static(&[0xff, 0x00]);
    let raw = RawRecord::new(Some(bytes.clone()), headers(), Some(bytes));
    let topic = Topic::new("t");
    let further: Headers = [("why".into(), None)].into_iter().collect();
    let outgoing = [
        Outgoing::raw(topic.clone(), raw.clone()),
        Outgoing::raw(topic, raw.clone()).with_headers(further),
    ];
    publish_all(&transport, &outgoing).await;
    let mut subscriber = subscribe(&transport, "g", &["t"]).await;
    let deliveries = subscriber.recv(10).await.unwrap();
    let plain = deliveries[0].event().unwrap_err();
    assert_eq!(plain.record, raw);
    assert_eq!(plain.error().kind(), ErrorKind::Decode);
    assert_eq!(plain.error().topic(), Some("t"));
    assert_eq!(deliveries[1].headers().len(), 3);
    assert!(transport.events("t").is_empty(), "it is no event");
    ack(&subscriber, &deliveries).await;
}

#[tokio::test]
async fn settled_events_make_room_and_unsettled_ones_never_do() {
    let transport = small(3);
    let mut subscriber = subscribe(&transport, "g", &["t"]).await;
    publish(&transport, "t", &["1", "2", "3"]).await;
    let deliveries = subscriber.recv(10).await.unwrap();
    ack(&subscriber, &deliveries[1..]).await;
    let publishing = publish_beside(&transport, "t", &["4"]).await;
    assert!(!publishing.is_finished(), "event 1 is not settled");
    ack(&subscriber, &deliveries[..1]).await;
    assert!(publishing.await.unwrap()[0].is_accepted());
    assert_eq!(stored(&transport, "t"), ["2", "3", "4"]);
}

#[tokio::test]
async fn room_is_what_every_group_has_settled() {
    let transport = small(2);
    let mut fast = subscribe(&transport, "fast", &["t"]).await;
    let mut slow = subscribe(&transport, "slow", &["t"]).await;
    publish(&transport, "t", &["1", "2"]).await;
    let deliveries = fast.recv(10).await.unwrap();
    ack(&fast, &deliveries).await;
    let publishing = publish_beside(&transport, "t", &["3"]).await;
    let deliveries = slow.recv(1).await.unwrap();
    assert!(!publishing.is_finished());
    ack(&slow, &deliveries).await;
    assert!(publishing.await.unwrap()[0].is_accepted());
}

#[tokio::test]
async fn a_batch_over_the_bound_is_stored_piece_by_piece_in_order() {
    let transport = small(2);
    let mut subscriber = subscribe(&transport, "g", &["t"]).await;
    let all = ["1", "2", "3", "4", "5", "6", "7"];
    let publishing = publish_beside(&transport, "t", &all).await;
    let mut received = Vec::new();
    while received.len() < all.len() {
        let deliveries = subscriber.recv(10).await.unwrap();
        assert!(deliveries.len() <= 2);
        ack(&subscriber, &deliveries).await;
        received.extend(ids(&deliveries).iter().map(|id| (*id).to_owned()));
    }
    assert_eq!(received, all);
    assert!(publishing.await.unwrap().iter().all(Outcome::is_accepted));
}

#[tokio::test(start_paused = true)]
async fn without_room_the_rest_is_rejected_at_the_deadline_and_other_topics_go_on() {
    let transport = small(2).named("bus");
    drop(subscribe(&transport, "sleepy", &["t"]).await);
    let publisher = transport.publisher().await.unwrap();
    let batch = ["t", "t", "t", "u", "t"].map(|topic| outgoing(topic, "1"));
    let start = Instant::now();
    let outcomes = publisher.publish(&batch).await;
    assert_eq!(start.elapsed(), Duration::from_secs(30));
    let accepted: Vec<_> = outcomes.iter().map(Outcome::is_accepted).collect();
    assert_eq!(accepted, [true, true, false, true, false]);
    let Outcome::Rejected(error) = &outcomes[2] else {
        panic!("{outcomes:?}");
    };
    assert_eq!(error.kind(), ErrorKind::Full);
    assert_eq!(error.operation(), Some("publish"));
    assert_eq!(error.transport(), Some("bus"));
    assert_eq!(error.topic(), Some("t"));
    assert!(
        error.notes()[0].contains("`sleepy` has 2 events"),
        "{error}"
    );
    assert_eq!(transport.events("t").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_nobody_reads_keeps_everything_and_fills_up() {
    let transport = small(2);
    let publisher = transport.publisher().await.unwrap();
    let outcomes = publisher
        .publish(&[(); 3].map(|()| outgoing("t", "1")))
        .await;
    let Outcome::Rejected(error) = &outcomes[2] else {
        panic!("{outcomes:?}");
    };
    assert!(error.to_string().contains("no group reads"), "{error}");
    let mut first = subscribe(&transport, "g", &["t"]).await;
    assert_eq!(first.recv(10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn of_what_is_settled_the_newest_is_kept_for_groups_to_come() {
    let config = MemoryConfig::default().keep_settled(2);
    let transport = MemoryTransport::with_config(&config).unwrap();
    let mut subscriber = subscribe(&transport, "g", &["t"]).await;
    for id in ["1", "2", "3", "4", "5"] {
        publish(&transport, "t", &[id]).await;
        let deliveries = subscriber.recv(10).await.unwrap();
        ack(&subscriber, &deliveries).await;
    }
    publish(&transport, "t", &["6"]).await;
    assert_eq!(stored(&transport, "t"), ["4", "5", "6"]);
    let mut later = subscribe(&transport, "later", &["t"]).await;
    let deliveries = later.recv(10).await.unwrap();
    assert_eq!(ids(&deliveries), ["4", "5", "6"]);
    assert_eq!(deliveries[0].position(), Position::new(0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_small_event_does_not_overtake_a_large_one_that_waits_for_room() {
    let config = MemoryConfig::default().max_bytes(1000);
    let transport = MemoryTransport::with_config(&config).unwrap();
    let publisher = transport.publisher().await.unwrap();
    let batch = [600, 600, 1].map(|size| {
        let event = Event::builder("t").source("s").data(vec![0; size]);
        Outgoing::new(Topic::new("t"), event.build().unwrap())
    });
    let outcomes = publisher.publish(&batch).await;
    let accepted: Vec<_> = outcomes.iter().map(Outcome::is_accepted).collect();
    assert_eq!(accepted, [true, false, false]);
}

#[tokio::test]
async fn an_event_over_a_whole_topics_bytes_is_rejected_alone() {
    let config = MemoryConfig::default().max_bytes(100);
    let transport = MemoryTransport::with_config(&config).unwrap();
    let publisher = transport.publisher().await.unwrap();
    let large = Event::builder("t").source("s").data(vec![0; 101]);
    let large = Outgoing::new(Topic::new("t"), large.build().unwrap());
    let outcomes = publisher.publish(&[outgoing("t", "1"), large]).await;
    assert!(outcomes[0].is_accepted());
    let Outcome::Rejected(error) = &outcomes[1] else {
        panic!("{outcomes:?}");
    };
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(!error.retryable());
}

#[tokio::test]
async fn a_closed_publisher_rejects_and_others_go_on() {
    let transport = MemoryTransport::new();
    let publisher = transport.publisher().await.unwrap();
    publisher.flush(Instant::now()).await.unwrap();
    for _ in 0..2 {
        publisher.close(Instant::now()).await.unwrap();
    }
    let outcomes = publisher.publish(&[outgoing("t", "1")]).await;
    let Outcome::Rejected(error) = &outcomes[0] else {
        panic!("{outcomes:?}");
    };
    assert_eq!(error.kind(), ErrorKind::Closed);
    publish(&transport, "t", &["2"]).await;
    assert_eq!(stored(&transport, "t"), ["2"]);
}

#[tokio::test(start_paused = true)]
async fn flush_and_close_wait_for_calls_that_wait_for_room() {
    let transport = small(1);
    let mut subscriber = subscribe(&transport, "g", &["t"]).await;
    let publisher = Arc::new(transport.publisher().await.unwrap());
    let publishing = tokio::spawn({
        let publisher = Arc::clone(&publisher);
        async move {
            publisher
                .publish(&[(); 2].map(|()| outgoing("t", "1")))
                .await
        }
    });
    tokio::task::yield_now().await;
    let soon = Instant::now() + Duration::from_secs(1);
    let error = publisher.flush(soon).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let later = Instant::now() + Duration::from_secs(1);
    let closing = tokio::spawn(async move { publisher.close(later).await });
    tokio::task::yield_now().await;
    assert!(!closing.is_finished());
    let deliveries = subscriber.recv(1).await.unwrap();
    ack(&subscriber, &deliveries).await;
    assert!(publishing.await.unwrap().iter().all(Outcome::is_accepted));
    closing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_publish_leaves_what_it_stored_and_waits_no_more() {
    let transport = small(1);
    let publisher = transport.publisher().await.unwrap();
    let batch = [outgoing("t", "1"), outgoing("t", "2")];
    let dropped = tokio::time::timeout(Duration::from_secs(1), publisher.publish(&batch)).await;
    assert!(dropped.is_err());
    publisher.flush(Instant::now()).await.unwrap();
    assert_eq!(stored(&transport, "t"), ["1"]);
}

#[tokio::test]
async fn nothing_is_left_when_the_last_client_is_dropped() {
    let owner: Arc<[u8]> = Arc::from(&b"data"[..]);
    let kept = Arc::downgrade(&owner);
    let event = Event::builder("t")
        .source("s")
        .data(Bytes::from_owner(owner));
    let batch = [Outgoing::new(Topic::new("t"), event.build().unwrap())];
    let transport = MemoryTransport::new();
    let mut subscriber = subscribe(&transport, "g", &["t"]).await;
    publish_all(&transport, &batch).await;
    drop(batch);
    drop(subscriber.recv(1).await.unwrap());
    let settler = subscriber.settler();
    let admin = transport.admin();
    drop((transport, subscriber, settler));
    assert!(kept.upgrade().is_some(), "the admin is a client too");
    drop(admin);
    assert!(kept.upgrade().is_none());
}
