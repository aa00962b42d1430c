//! Outcomes: what is accepted is there, what is rejected is not, and nothing hangs.

use std::time::Duration;

use crate::support::{
    Raw, connect, connect_with, count_accepted, event, events, eventually, topic,
};
use polybus_core::transport::{Outcome, Outgoing, Publisher, Transport};
use polybus_core::{Effect, ErrorKind, Event};
use polybus_redis_streams::{RedisConfig, RedisTransport};
use polybus_test_support::{RedisServer, Request, Strike, TcpProxy, Then};
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn a_full_server_rejects_what_it_can_not_hold_and_keeps_what_it_accepted() {
    let server = RedisServer::start().await.unwrap();
    let (transport, raw, topic) = (connect(&server).await, Raw::connect(&server).await, topic());
    let _: () = raw.call("CONFIG SET maxmemory 8mb").await;
    let large = |number: usize| {
        let event = event(number).to_builder().data(vec![b'x'; 100_000]);
        Outgoing::new(topic.clone(), event.build().unwrap())
    };
    let batch: Vec<_> = (0..200).map(large).collect();
    let outcomes = transport.publisher().await.unwrap().publish(&batch).await;
    let accepted = count_accepted(&outcomes);
    assert!((1..200).contains(&accepted), "{accepted}");
    for outcome in outcomes
        .into_iter()
        .filter(|outcome| !outcome.is_accepted())
    {
        let Outcome::Rejected(error) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(error.retryable());
        assert_eq!(error.effect(), Effect::NotApplied);
        assert_eq!(error.topic(), Some(topic.name()));
    }
    let length: usize = raw.words(&["XLEN", topic.name()]).await;
    assert_eq!(length, accepted);
}

#[tokio::test]
async fn a_key_that_holds_no_stream_rejects_only_its_own() {
    let server = RedisServer::shared().await;
    let (transport, raw) = (connect(server).await, Raw::connect(server).await);
    let (good, bad) = (topic(), topic());
    let _: () = raw.words(&["SET", bad.name(), "text"]).await;
    let mut batch = events(&good, 0..300);
    batch.insert(150, Outgoing::new(bad.clone(), event(999)));
    let mut outcomes = transport.publisher().await.unwrap().publish(&batch).await;
    let Outcome::Rejected(error) = outcomes.remove(150) else {
        panic!("not rejected")
    };
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert!(!error.retryable());
    assert_eq!(error.topic(), Some(bad.name()));
    assert_eq!(count_accepted(&outcomes), 300);
}

#[tokio::test]
async fn events_of_many_chunks_and_callers_stand_in_their_order() {
    let server = RedisServer::shared().await;
    let (transport, raw, topic) = (connect(server).await, Raw::connect(server).await, topic());
    let publisher = transport.publisher().await.unwrap();
    for start in [0, 1_234] {
        let outcomes = publisher
            .publish(&events(&topic, start..start + 1_234))
            .await;
        assert_eq!(count_accepted(&outcomes), 1_234);
        let positions = outcomes
            .into_iter()
            .map(|outcome| outcome.into_result().unwrap());
        assert!(positions.collect::<Vec<_>>().is_sorted());
    }
    let entries: Vec<(String, Vec<String>)> = raw.words(&["XRANGE", topic.name(), "-", "+"]).await;
    let data: Vec<&str> = entries
        .iter()
        .map(|(_, fields)| fields[3].as_str())
        .collect();
    let expected: Vec<String> = (0..2_468).map(|n| format!("event-{n:05}")).collect();
    assert_eq!(data, expected);
}

#[tokio::test]
async fn the_answers_to_a_call_that_was_dropped_are_nobody_elses() {
    let server = RedisServer::start().await.unwrap();
    let (transport, raw, topic) = (connect(&server).await, Raw::connect(&server).await, topic());
    let publisher = transport.publisher().await.unwrap();
    // While the server is halted all that is sent waits for its answer.
    server.pause().await.unwrap();
    let numbers = |call: usize| call * 100..call * 100 + 1 + call * 4;
    let batches: Vec<_> = (0..20).map(|call| events(&topic, numbers(call))).collect();
    let mut calls: Vec<_> = batches
        .iter()
        .map(|batch| Box::pin(publisher.publish(batch)))
        .enumerate()
        .collect();
    for (_, call) in &mut calls {
        assert!(futures::poll!(call).is_pending());
    }
    calls.retain(|(call, _)| call % 3 != 1);
    server.resume().await.unwrap();
    let calls = calls.into_iter().map(|(call, publishing)| async move {
        let positions = publishing.await.into_iter();
        let positions = positions.map(|outcome| outcome.into_result().unwrap());
        numbers(call).zip(positions).collect::<Vec<_>>()
    });
    let calls = futures::future::join_all(calls).await;
    let entries: Vec<(String, Vec<String>)> = raw.words(&["XRANGE", topic.name(), "-", "+"]).await;
    let stored: std::collections::HashMap<_, _> = entries
        .iter()
        .map(|(id, fields)| (id.as_str(), fields[3].as_str()))
        .collect();
    let mut accepted = 0;
    for (number, position) in calls.into_iter().flatten() {
        let id = format!("{}-{}", position.offset(), position.sequence().unwrap());
        assert_eq!(stored[id.as_str()], format!("event-{number:05}"));
        accepted += 1;
    }
    assert!(accepted > 400, "{accepted}");
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_event() {
    let server = RedisServer::start().await.unwrap();
    let (transport, raw, topic) = (connect(&server).await, Raw::connect(&server).await, topic());
    let publisher = transport.publisher().await.unwrap();
    for round in 0..20 {
        assert!(publisher.publish(&events(&topic, 0..2)).await[1].is_accepted());
        let _: usize = raw.call("CLIENT KILL TYPE normal SKIPME yes").await;
        // The server closes them before it answers this, and the client hears of it before.
        eventually("the end of the connections", async || {
            let clients: String = raw.call("CLIENT LIST").await;
            clients.lines().count() == 1
        })
        .await;
        let _: String = raw.call("PING").await;
        let next = publisher.publish(&events(&topic, 2..3)).await.remove(0);
        assert!(next.is_accepted(), "round {round}: {next:?}");
    }
}

#[tokio::test]
async fn without_a_server_events_are_rejected_within_the_connect_deadline() {
    let server = RedisServer::start().await.unwrap();
    let transport = connect_with(&server, |config| {
        config.connect_deadline = Duration::from_millis(500);
    })
    .await;
    let topic = topic();
    let publisher = transport.publisher().await.unwrap();
    assert!(publisher.publish(&events(&topic, 0..1)).await[0].is_accepted());
    server.kill().await.unwrap();
    // The client hears of it by itself; what is published before that is unknown, not rejected.
    eventually("the end of the connection", async || {
        match publisher.publish(&events(&topic, 1..2)).await.remove(0) {
            Outcome::Rejected(error) => {
                assert_eq!(error.kind(), ErrorKind::Connect);
                assert!(error.retryable());
                let address = server.url().trim_start_matches("redis://");
                assert!(error.to_string().contains(address), "{error}");
                true
            }
            Outcome::Unknown(error) => {
                assert!(error.retryable(), "{error}");
                false
            }
            Outcome::Accepted(_) => panic!("nobody was there to accept it"),
        }
    })
    .await;
    server.restart().await.unwrap();
    assert!(publisher.publish(&events(&topic, 2..3)).await[0].is_accepted());
}

#[tokio::test]
async fn what_comes_behind_a_lost_connection_takes_a_new_one() {
    let server = RedisServer::shared().await;
    let proxy = TcpProxy::in_front_of(server.url()).await.unwrap();
    let config = RedisConfig::new(format!("redis://{}", proxy.address()));
    let transport = RedisTransport::connect(config).await.unwrap();
    let (raw, topic) = (Raw::connect(server).await, topic());
    let publisher = transport.publisher().await.unwrap();
    // Many times: whether the client has noticed the loss by then is chance.
    for round in 0..50 {
        let xadd = Request::Containing(b"XADD");
        let struck = proxy.strike(xadd, Strike::LoseReply, Then::GoOn);
        let lost = publisher.publish(&events(&topic, 0..1)).await.remove(0);
        assert!(matches!(lost, Outcome::Unknown(_)), "{lost:?}");
        struck.happened().await;
        let next = publisher.publish(&events(&topic, 1..2)).await.remove(0);
        assert!(next.is_accepted(), "round {round}: {next:?}");
    }
    let length: usize = raw.words(&["XLEN", topic.name()]).await;
    assert_eq!(length, 100);
}

#[tokio::test]
async fn many_callers_do_not_keep_each_other_from_connecting() {
    const CALLERS: u32 = 50;
    let server = RedisServer::shared().await;
    let proxy = TcpProxy::in_front_of(server.url()).await.unwrap();
    let mut config = RedisConfig::new(format!("redis://{}", proxy.address()));
    config.connect_deadline = Duration::from_millis(1_500);
    let stagger = config.connect_deadline / CALLERS;
    let transport = RedisTransport::connect(config).await.unwrap();
    let publisher = transport.publisher().await.unwrap();
    let topic = topic();
    proxy.cut();
    // Each calls as soon as its last call has failed, and the one before it is a little older.
    let callers = (0..CALLERS).map(|caller| {
        let (publisher, topic) = (&publisher, topic.clone());
        async move {
            tokio::time::sleep(stagger * caller).await;
            while !publisher.publish(&events(&topic, 0..1)).await[0].is_accepted() {}
        }
    });
    let mended = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        proxy.mend();
    };
    let all = async { tokio::join!(futures::future::join_all(callers), mended) };
    let all = timeout(Duration::from_secs(5) + crate::support::PATIENCE, all).await;
    assert!(all.is_ok(), "the server is there, and nobody reaches it");
}

#[tokio::test]
async fn what_was_sent_to_a_server_that_dies_is_unknown() {
    let server = RedisServer::start().await.unwrap();
    let (transport, topic) = (connect(&server).await, topic());
    let publisher = transport.publisher().await.unwrap();
    server.pause().await.unwrap();
    let batch = events(&topic, 0..250);
    let (outcomes, ()) = tokio::join!(publisher.publish(&batch), async {
        server.kill().await.unwrap();
    });
    for outcome in outcomes {
        match outcome {
            Outcome::Unknown(error) => assert_eq!(error.effect(), Effect::Unknown),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_that_hangs_holds_a_publish_up_to_its_deadline() {
    let server = RedisServer::start().await.unwrap();
    let transport = connect_with(&server, |config| {
        config.delivery_deadline = Duration::from_millis(300);
        config.connect_deadline = Duration::from_millis(300);
    })
    .await;
    let (raw, topic) = (Raw::connect(&server).await, topic());
    let publisher = transport.publisher().await.unwrap();
    server.pause().await.unwrap();
    let batch = events(&topic, 0..1_000);
    let outcomes = timeout(crate::support::PATIENCE, publisher.publish(&batch))
        .await
        .unwrap();
    assert_eq!(outcomes.len(), 1_000);
    let mut unknown = 0;
    for outcome in outcomes {
        match outcome {
            Outcome::Unknown(error) => {
                unknown += 1;
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            }
            Outcome::Rejected(error) => assert!(error.retryable(), "{error}"),
            Outcome::Accepted(_) => panic!("the server was halted"),
        }
    }
    assert!(unknown > 0);
    let error = publisher
        .flush(Instant::now() + Duration::from_millis(100))
        .await;
    drop(error);
    server.resume().await.unwrap();
    assert!(publisher.publish(&events(&topic, 0..1)).await[0].is_accepted());
    // Only what was unknown may be there beside the one accepted.
    let length: usize = raw.words(&["XLEN", topic.name()]).await;
    assert!((1..=unknown + 1).contains(&length), "{length} of {unknown}");
}

#[tokio::test]
async fn a_flush_covers_what_a_cancelled_call_has_sent() {
    let server = RedisServer::start().await.unwrap();
    let (transport, raw, topic) = (connect(&server).await, Raw::connect(&server).await, topic());
    let publisher = transport.publisher().await.unwrap();
    server.pause().await.unwrap();
    let batch = events(&topic, 0..100);
    assert!(
        timeout(Duration::from_millis(50), publisher.publish(&batch))
            .await
            .is_err()
    );
    let late = publisher
        .flush(Instant::now() + Duration::from_millis(50))
        .await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Timeout);
    server.resume().await.unwrap();
    let event = Event::builder("t").source("s").build().unwrap();
    let last = [Outgoing::new(topic.clone(), event)];
    assert!(publisher.publish(&last).await[0].is_accepted());
    publisher
        .close(Instant::now() + crate::support::PATIENCE)
        .await
        .unwrap();
    let Outcome::Rejected(error) = publisher.publish(&last).await.remove(0) else {
        panic!("a closed publisher refuses")
    };
    assert_eq!(error.kind(), ErrorKind::Closed);
    let length: usize = raw.words(&["XLEN", topic.name()]).await;
    assert_eq!(length, 101);
}
