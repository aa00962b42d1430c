//! Servers that die, come back and forget.

use std::collections::BTreeMap;
use std::time::Duration;

use polybus_core::transport::{Outcome, Publisher, Start, Subscriber, Transport};
use polybus_test_support::RedisServer;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::support::{
    PATIENCE, Raw, ack, close, connect, connect_with, event, events, eventually, ids, numbered_ids,
    publish, recv_again, subscription, take, topic,
};

#[tokio::test]
async fn nothing_accepted_is_lost_when_the_server_is_killed_and_comes_back() {
    const TOTAL: usize = 2_000;
    let server = RedisServer::start().await.unwrap();
    let (transport, raw_topic) = (connect(&server).await, topic());
    let publisher = transport.publisher().await.unwrap();
    let mut subscriber = transport
        .subscribe(subscription("g", &raw_topic))
        .await
        .unwrap();
    let (half, at_half) = oneshot::channel();

    let publishing = async {
        let mut half = Some(half);
        for number in 0..TOTAL {
            if number == TOTAL / 2 {
                half.take().map(|half| half.send(()));
            }
            let batch = [polybus_core::transport::Outgoing::new(
                raw_topic.clone(),
                event(number),
            )];
            // Unknown ones are sent again too, so some may be there twice.
            while !matches!(publisher.publish(&batch).await[..], [Outcome::Accepted(_)]) {}
        }
    };
    let disrupting = async {
        at_half.await.unwrap();
        server.kill().await.unwrap();
        server.restart().await.unwrap();
    };
    let handling = async {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        while seen.len() < TOTAL {
            let deliveries = recv_again(&mut subscriber, 100).await;
            for id in ids(&deliveries) {
                *seen.entry(id).or_default() += 1;
            }
            for result in ack(&subscriber, &deliveries).await {
                if let Err(error) = result {
                    assert!(error.retryable(), "{error:?}");
                }
            }
        }
        seen
    };
    let ((), (), seen) = tokio::join!(publishing, disrupting, handling);
    let twice = seen.values().filter(|count| **count > 1).count();
    assert!(twice < 200, "{twice} of {TOTAL} came more than once");
    close(subscriber).await;
}

#[tokio::test]
async fn a_settlement_that_failed_can_be_settled_again() {
    let server = RedisServer::start().await.unwrap();
    let transport = connect_with(&server, |config| {
        config.connect_deadline = Duration::from_millis(200);
    })
    .await;
    let topic = topic();
    publish(&transport, &events(&topic, 0..5)).await;
    let mut subscriber = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    let deliveries = take(&mut subscriber, 5).await;
    server.kill().await.unwrap();
    for result in ack(&subscriber, &deliveries).await {
        assert!(result.unwrap_err().retryable());
    }
    server.restart().await.unwrap();
    eventually("the settlement", async || {
        ack(&subscriber, &deliveries)
            .await
            .iter()
            .all(Result::is_ok)
    })
    .await;
    let raw = Raw::connect(&server).await;
    assert_eq!(raw.pending(&topic, "g", None).await, 0);
    close(subscriber).await;
}

#[tokio::test]
async fn a_reader_goes_on_after_the_server_has_forgotten_everything() {
    let server = RedisServer::start().await.unwrap();
    let (transport, raw, topic) = (connect(&server).await, Raw::connect(&server).await, topic());
    let mut subscriber = transport
        .subscribe(subscription("g", &topic).start(Start::Now))
        .await
        .unwrap();
    publish(&transport, &events(&topic, 0..10)).await;
    let before = take(&mut subscriber, 10).await;
    // In one step, so that the entry is there before the group can be: it must start before it.
    const WIPE: &str =
        "redis.call('FLUSHALL') return redis.call('XADD', KEYS[1], '*', 'ce', ARGV[1])";
    let first = r#"{"specversion":"1.0","id":"first","source":"s","type":"t"}"#;
    let _: String = raw.words(&["EVAL", WIPE, "1", topic.name(), first]).await;
    let (mut after, mut told) = (Vec::new(), None);
    while after.is_empty() || told.is_none() {
        let received = timeout(PATIENCE, subscriber.recv(100)).await;
        match received.expect("the reader is told, and goes on") {
            Ok(deliveries) => after.extend(deliveries),
            Err(error) => told = Some(error.to_string()),
        }
    }
    let told = told.unwrap_or_default();
    assert!(told.contains("created again"), "{told}");
    assert_eq!(ids(&after), ["first"]);
    publish(&transport, &events(&topic, 10..20)).await;
    after.extend(take(&mut subscriber, 10).await);
    assert_eq!(ids(&after[1..]), numbered_ids(10..20));
    // What is gone with the server needs no settlement, and is none's fault.
    assert!(ack(&subscriber, &before).await.iter().all(Result::is_ok));
    assert!(ack(&subscriber, &after).await.iter().all(Result::is_ok));
    assert_eq!(raw.pending(&topic, "g", None).await, 0);
    close(subscriber).await;
}

#[tokio::test]
async fn a_deleted_stream_is_read_again_when_it_comes_back() {
    let server = RedisServer::shared().await;
    let (transport, raw, topic) = (connect(server).await, Raw::connect(server).await, topic());
    let mut subscriber = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    let _: usize = raw.words(&["DEL", topic.name()]).await;
    publish(&transport, &events(&topic, 0..3)).await;
    let mut deliveries = Vec::new();
    while deliveries.len() < 3 {
        deliveries.extend(recv_again(&mut subscriber, 3).await);
    }
    assert!(
        ack(&subscriber, &deliveries)
            .await
            .iter()
            .all(Result::is_ok)
    );
    close(subscriber).await;
}

#[tokio::test]
async fn a_reader_whose_connection_is_cut_repeats_nothing_it_has_in_hand() {
    let server = RedisServer::start().await.unwrap();
    let (transport, raw, topic) = (connect(&server).await, Raw::connect(&server).await, topic());
    let mut subscriber = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    let mut all = Vec::new();
    for round in 0..10 {
        publish(&transport, &events(&topic, round * 10..round * 10 + 10)).await;
        let _: usize = raw.call("CLIENT KILL TYPE normal SKIPME yes").await;
        while all.len() < round * 10 + 10 {
            all.extend(recv_again(&mut subscriber, 100).await);
        }
    }
    assert_eq!(
        all.len(),
        100,
        "an event came twice to a member that has it in hand"
    );
    assert!(ack(&subscriber, &all).await.iter().all(Result::is_ok));
    assert_eq!(raw.pending(&topic, "g", None).await, 0);
    close(subscriber).await;
}

#[tokio::test]
async fn a_wrong_key_ends_the_subscriber_with_a_reason() {
    let server = RedisServer::shared().await;
    let (transport, raw, topic) = (connect(server).await, Raw::connect(server).await, topic());
    let mut subscriber = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    let _: usize = raw.words(&["DEL", topic.name()]).await;
    let _: () = raw.words(&["SET", topic.name(), "text"]).await;
    let error = loop {
        match subscriber.recv(1).await {
            Ok(deliveries) => panic!("{deliveries:?}"),
            Err(error) if error.retryable() => {}
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("WRONGTYPE"), "{error}");
    let again = subscriber.recv(1).await.unwrap_err();
    assert_eq!(again.kind(), polybus_core::ErrorKind::Closed);
    close(subscriber).await;
}
