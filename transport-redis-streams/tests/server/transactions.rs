//! Events that are stored all or none.

use std::time::Duration;

use crate::support::{Raw, connect, connect_with, event, events, subscription, topic};
use polybus_core::transport::{Outgoing, Publisher, Transport};
use polybus_core::{Effect, ErrorKind, Topic};
use polybus_redis_streams::Trim;
use polybus_test_support::RedisServer;
use tokio::time::{Instant, timeout};

async fn length(raw: &Raw, topic: &Topic) -> usize {
    raw.words(&["XLEN", topic.name()]).await
}

#[tokio::test]
async fn a_transaction_stores_all_in_its_order() {
    let server = RedisServer::shared().await;
    let (transport, raw) = (connect(server).await, Raw::connect(server).await);
    let (one, two) = (topic(), topic());
    let mut batch = events(&one, 0..500);
    batch.extend(events(&two, 500..1000));
    batch.extend(events(&one, 1000..1500));
    let publisher = transport.publisher().await.unwrap();
    let positions = publisher.publish_together(&batch).await.unwrap();
    assert_eq!(positions.len(), 1500);
    let entries: Vec<(String, Vec<String>)> = raw.words(&["XRANGE", one.name(), "-", "+"]).await;
    let data: Vec<_> = entries
        .iter()
        .map(|(_, fields)| fields[3].as_str())
        .collect();
    let expected: Vec<_> = (0..500)
        .chain(1000..1500)
        .map(|n| format!("event-{n:05}"))
        .collect();
    assert_eq!(data, expected);
    assert_eq!(length(&raw, &two).await, 500);
}

/// In `MULTI` the others would be stored: the server goes on after a command that fails.
#[tokio::test]
async fn a_key_that_holds_no_stream_takes_the_others_back() {
    let server = RedisServer::shared().await;
    let (transport, raw) = (connect(server).await, Raw::connect(server).await);
    let (new, known, bad) = (topic(), topic(), topic());
    let publisher = transport.publisher().await.unwrap();
    publisher
        .publish_together(&events(&known, 0..3))
        .await
        .unwrap();
    let _: () = raw.words(&["SET", bad.name(), "text"]).await;
    let mut batch = events(&new, 0..10);
    batch.extend(events(&known, 10..20));
    batch.push(Outgoing::new(bad.clone(), event(999)));
    batch.extend(events(&new, 20..30));
    let error = publisher.publish_together(&batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport, "{error}");
    assert_eq!(error.effect(), Effect::NotApplied);
    assert!(!error.retryable());
    assert_eq!(error.topic(), Some(bad.name()));
    assert_eq!(length(&raw, &known).await, 3);
    let made: usize = raw.words(&["EXISTS", new.name()]).await;
    assert_eq!(
        made, 0,
        "a stream is left that was made for what was taken back"
    );
}

#[tokio::test]
async fn a_full_server_stores_all_of_a_transaction_or_nothing() {
    const EACH: usize = 7;
    let server = RedisServer::start().await.unwrap();
    let (transport, raw) = (connect(&server).await, Raw::connect(&server).await);
    let (one, two) = (topic(), topic());
    let _: () = raw.call("CONFIG SET maxmemory 8mb").await;
    let publisher = transport.publisher().await.unwrap();
    let (mut stored, mut refused) = (0, 0);
    for number in 0..60 {
        let large = |topic: &Topic| {
            let event = event(number).to_builder().data(vec![b'x'; 30_000]);
            Outgoing::new(topic.clone(), event.build().unwrap())
        };
        let topics = [&one, &two];
        let batch: Vec<_> = (0..EACH).map(|index| large(topics[index % 2])).collect();
        match publisher.publish_together(&batch).await {
            Ok(_) => stored += 1,
            Err(error) => {
                refused += 1;
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                assert_eq!(error.effect(), Effect::NotApplied);
                assert!(error.retryable());
            }
        }
    }
    assert!(
        stored > 0 && refused > 0,
        "{stored} stored, {refused} refused"
    );
    let total = length(&raw, &one).await + length(&raw, &two).await;
    assert_eq!(total, stored * EACH);
}

#[tokio::test]
async fn an_answer_that_never_comes_leaves_it_open() {
    let server = RedisServer::start().await.unwrap();
    let transport = connect_with(&server, |config| {
        config.delivery_deadline = Duration::from_secs(1);
    })
    .await;
    let topic = topic();
    let publisher = transport.publisher().await.unwrap();
    publisher
        .publish_together(&events(&topic, 0..1))
        .await
        .unwrap();
    server.pause().await.unwrap();
    let batch = events(&topic, 1..4);
    let call = timeout(Duration::from_secs(20), publisher.publish_together(&batch)).await;
    server.resume().await.unwrap();
    let error = call.expect("bounded").unwrap_err();
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Timeout, Effect::Unknown)
    );
    let more = events(&topic, 4..6);
    let end = Instant::now() + Duration::from_secs(20);
    while let Err(error) = publisher.publish_together(&more).await {
        assert!(Instant::now() < end && error.retryable(), "{error}");
    }
    let raw = Raw::connect(&server).await;
    let length = length(&raw, &topic).await;
    assert!([3, 6].contains(&length), "{length} of 1, maybe 3, and 2");
}

/// Each server is killed once: when its log was cut off within a transaction, Redis 7.0 leaves the
/// beginning there, and takes it for part of the next one at the second restart.
#[tokio::test]
async fn a_killed_server_leaves_no_part_of_a_transaction() {
    const EACH: usize = 5;
    for round in 0..3 {
        let server = RedisServer::start().await.unwrap();
        let transport = connect(&server).await;
        let (one, two) = (topic(), topic());
        let publisher = transport.publisher().await.unwrap();
        let publish = async {
            let mut outcomes = (0, 0);
            for number in 0..400 {
                let mut batch = events(&one, number..number + EACH);
                batch.extend(events(&two, number..number + EACH));
                match publisher.publish_together(&batch).await {
                    Ok(_) => outcomes.0 += 1,
                    Err(error) if error.effect() == Effect::Unknown => outcomes.1 += 1,
                    Err(_) => {}
                }
            }
            outcomes
        };
        let kill = async {
            tokio::time::sleep(Duration::from_millis(20 + 10 * round)).await;
            server.kill().await.unwrap();
            server.restart().await.unwrap();
        };
        let ((stored, cut), ()) = tokio::join!(publish, kill);
        let raw = Raw::connect(&server).await;
        let (first, second) = (length(&raw, &one).await, length(&raw, &two).await);
        assert_eq!(first, second);
        assert_eq!(first % EACH, 0);
        let whole = first / EACH;
        assert!(
            whole >= stored && whole <= stored + cut,
            "{whole} of {stored} and {cut}"
        );
    }
}

#[tokio::test]
async fn transactions_trim_as_other_events_do() {
    let server = RedisServer::shared().await;
    let transport = connect_with(server, |config| config.trim = Some(Trim::MaxLen(100))).await;
    let (raw, topic) = (Raw::connect(server).await, topic());
    let publisher = transport.publisher().await.unwrap();
    publisher
        .publish_together(&events(&topic, 0..1000))
        .await
        .unwrap();
    let length = length(&raw, &topic).await;
    assert!((100..400).contains(&length), "{length}");
}

#[tokio::test]
async fn an_exactly_once_subscription_is_refused() {
    let server = RedisServer::shared().await;
    let transport = connect(server).await;
    let subscription = subscription("group", &topic()).exactly_once(true);
    let error = transport.subscribe(subscription).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.effect(), Effect::NotApplied);
}
