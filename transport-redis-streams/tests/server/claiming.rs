//! Who has an entry in hand: own pending ones, those of dead members, slow handlers.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use polybus_core::ErrorKind;
use polybus_core::transport::{Delivery, Losses, Settlement, Settler, Subscriber, Transport};
use polybus_test_support::RedisServer;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::{
    PATIENCE, Raw, ack, close, connect, connect_with, ensure_quiet, events, eventually, ids,
    numbered_ids, publish, recv_again, settle, subscription, take, topic,
};

/// Short enough for a test, long enough for a busy machine to keep what is in hand.
const TAKEOVER: Duration = Duration::from_millis(800);

#[tokio::test]
async fn a_member_that_comes_back_gets_first_what_it_had() {
    let server = RedisServer::shared().await;
    let (transport, topic) = (connect(server).await, topic());
    publish(&transport, &events(&topic, 0..10)).await;
    // So long that only the member itself can have it back.
    let named = || {
        let subscription = subscription("g", &topic).member("worker-1");
        subscription.takeover_after(Duration::from_secs(3600))
    };
    let mut subscriber = transport.subscribe(named()).await.unwrap();
    let deliveries = take(&mut subscriber, 10).await;
    ack(&subscriber, &deliveries[3..5]).await;
    drop(subscriber);
    publish(&transport, &events(&topic, 10..12)).await;

    let mut subscriber = transport.subscribe(named()).await.unwrap();
    let deliveries = take(&mut subscriber, 10).await;
    let mut expected = numbered_ids(0..12);
    expected.drain(3..5);
    assert_eq!(ids(&deliveries), expected);
    let attempts: Vec<u32> = deliveries.iter().map(Delivery::attempt).collect();
    assert_eq!(attempts, [2, 2, 2, 2, 2, 2, 2, 2, 1, 1]);
    assert!(
        ack(&subscriber, &deliveries)
            .await
            .iter()
            .all(Result::is_ok)
    );
    ensure_quiet(&mut subscriber).await;
    close(subscriber).await;
}

#[tokio::test]
async fn what_a_dead_member_had_goes_to_another_with_its_count() {
    let server = RedisServer::shared().await;
    let (transport, raw, topic) = (connect(server).await, Raw::connect(server).await, topic());
    publish(&transport, &events(&topic, 0..250)).await;
    let mortal = || subscription("g", &topic).takeover_after(TAKEOVER);
    for attempt in 1..=3 {
        let mut subscriber = transport.subscribe(mortal()).await.unwrap();
        let deliveries = take(&mut subscriber, 250).await;
        assert!(
            deliveries
                .iter()
                .all(|delivery| delivery.attempt() == attempt)
        );
        let mut taken = ids(&deliveries);
        taken.sort_unstable();
        assert_eq!(taken, numbered_ids(0..250));
        if attempt == 3 {
            assert!(
                ack(&subscriber, &deliveries)
                    .await
                    .iter()
                    .all(Result::is_ok)
            );
            close(subscriber).await;
        }
    }
    assert_eq!(raw.pending(&topic, "g", None).await, 0);
}

#[tokio::test]
async fn a_slow_handler_keeps_what_it_has() {
    let server = RedisServer::shared().await;
    let (transport, topic) = (connect(server).await, topic());
    let mortal = || subscription("g", &topic).takeover_after(TAKEOVER);
    let mut slow = transport.subscribe(mortal()).await.unwrap();
    publish(&transport, &events(&topic, 0..20)).await;
    let deliveries = take(&mut slow, 20).await;
    let mut other = transport.subscribe(mortal()).await.unwrap();
    let handling = async {
        // The handler's own time, not a wait for something.
        sleep(TAKEOVER * 4).await;
        let settler = slow.settler();
        assert!(
            deliveries
                .iter()
                .all(|delivery| settler.is_current(delivery.token()))
        );
        ack(&slow, &deliveries).await
    };
    tokio::select! {
        results = handling => assert!(results.iter().all(Result::is_ok)),
        stolen = other.recv(1) => panic!("taken from a living member: {stolen:?}"),
    }
    ensure_quiet(&mut other).await;
    close(slow).await;
    close(other).await;
}

#[tokio::test]
async fn nobody_settles_what_another_member_has_taken_over() {
    let server = RedisServer::shared().await;
    let (transport, raw, topic) = (connect(server).await, Raw::connect(server).await, topic());
    publish(&transport, &events(&topic, 0..3)).await;
    // The thief tells nobody that it lives: what follows has to be over before it is taken for dead.
    let mortal = subscription("g", &topic).takeover_after(TAKEOVER * 4);
    let mut subscriber = transport.subscribe(mortal).await.unwrap();
    let deliveries = take(&mut subscriber, 3).await;
    let tokens: Vec<_> = deliveries.iter().map(Delivery::token).collect();
    // What the walk of another member does when this process was halted for too long.
    for token in &tokens[..2] {
        let id = format!("{}-{}", token.id[0], token.id[1]);
        let _: redis::Value = raw
            .words(&["XCLAIM", topic.name(), "g", "thief", "0", &id, "JUSTID"])
            .await;
    }
    let settler = subscriber.settler();
    eventually("the loss being noticed", async || {
        !settler.is_current(tokens[0])
    })
    .await;
    let batch = [
        (tokens[0], Settlement::Ack),
        (tokens[1], Settlement::Release),
        (tokens[2], Settlement::Ack),
    ];
    let results = settler.settle(&batch).await;
    for result in &results[..2] {
        let error = result.as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale);
        assert!(!error.retryable());
    }
    assert!(results[2].is_ok());
    assert_eq!(raw.pending(&topic, "g", Some("thief")).await, 2);
    assert_eq!(raw.pending(&topic, "g", None).await, 2);
    // It is the thief's still, whatever this member does.
    ensure_quiet(&mut subscriber).await;
    close(subscriber).await;
    assert_eq!(raw.pending(&topic, "g", Some("thief")).await, 2);
}

#[tokio::test]
async fn a_released_event_comes_back_and_its_old_token_is_stale() {
    let server = RedisServer::shared().await;
    // Only the release itself starts a walk.
    let transport = connect_with(server, |config| {
        config.claim_interval = Duration::from_secs(3600);
    })
    .await;
    let topic = topic();
    publish(&transport, &events(&topic, 0..2)).await;
    let patient = subscription("g", &topic).takeover_after(Duration::from_secs(3600));
    let mut subscriber = transport.subscribe(patient).await.unwrap();
    let first = take(&mut subscriber, 2).await;
    assert!(settle(&subscriber, &first[..1], Settlement::Release).await[0].is_ok());
    let second = take(&mut subscriber, 1).await;
    assert_eq!(ids(&second), ids(&first[..1]));
    assert_eq!(second[0].attempt(), 2);
    for settlement in [Settlement::Ack, Settlement::Release] {
        let results = settle(&subscriber, &first[..1], settlement).await;
        assert_eq!(results[0].as_ref().unwrap_err().kind(), ErrorKind::Stale);
    }
    assert!(ack(&subscriber, &second).await[0].is_ok());
    // To settle again what was settled is harmless.
    assert!(ack(&subscriber, &second).await[0].is_ok());
    assert!(ack(&subscriber, &first[1..]).await[0].is_ok());
    ensure_quiet(&mut subscriber).await;
    close(subscriber).await;
}

#[tokio::test]
async fn entries_deleted_while_they_were_pending_are_counted() {
    let server = RedisServer::shared().await;
    let (transport, raw, topic) = (connect(server).await, Raw::connect(server).await, topic());
    publish(&transport, &events(&topic, 0..10)).await;
    let losses = Losses::default();
    let mortal = || {
        subscription("g", &topic)
            .takeover_after(TAKEOVER)
            .losses(&losses)
    };
    let mut subscriber = transport.subscribe(mortal()).await.unwrap();
    take(&mut subscriber, 10).await;
    drop(subscriber);
    let _: usize = raw.words(&["XTRIM", topic.name(), "MAXLEN", "4"]).await;

    let mut subscriber = transport.subscribe(mortal()).await.unwrap();
    let deliveries = take(&mut subscriber, 4).await;
    assert_eq!(ids(&deliveries), numbered_ids(6..10));
    eventually("the count", async || losses.count() == 6).await;
    ack(&subscriber, &deliveries).await;
    assert_eq!(raw.pending(&topic, "g", None).await, 0);
    close(subscriber).await;
}

#[tokio::test]
async fn members_are_removed_when_they_are_gone_and_have_nothing() {
    let server = RedisServer::shared().await;
    let transport = connect_with(server, |config| {
        config.remove_members_after = Duration::from_millis(500);
        config.claim_interval = Duration::from_millis(100);
    })
    .await;
    let (raw, topic) = (Raw::connect(server).await, topic());
    let patient = |name: &str| {
        let subscription = subscription("g", &topic).member(name);
        subscription.takeover_after(Duration::from_secs(3600))
    };
    publish(&transport, &events(&topic, 0..1)).await;
    let mut holder = transport.subscribe(patient("dead-holder")).await.unwrap();
    take(&mut holder, 1).await;
    drop(holder);
    let mut idle = transport.subscribe(patient("dead-idle")).await.unwrap();
    publish(&transport, &events(&topic, 1..2)).await;
    let deliveries = take(&mut idle, 1).await;
    ack(&idle, &deliveries).await;
    assert_eq!(raw.members(&topic, "g").await.len(), 2);
    drop(idle);
    let mut living = transport.subscribe(patient("living")).await.unwrap();
    eventually("the removal", async || {
        let members = raw.members(&topic, "g").await;
        assert!(
            members.contains(&"dead-holder".to_owned()),
            "removed with an entry pending"
        );
        !members.contains(&"dead-idle".to_owned())
    })
    .await;
    publish(&transport, &events(&topic, 2..3)).await;
    let deliveries = take(&mut living, 1).await;
    let mut members = raw.members(&topic, "g").await;
    members.sort_unstable();
    assert_eq!(members, ["dead-holder", "living"]);
    // An orderly end leaves no name behind.
    ack(&living, &deliveries).await;
    close(living).await;
    assert_eq!(raw.members(&topic, "g").await, ["dead-holder"]);
}

#[tokio::test]
async fn a_member_that_leaves_gives_back_what_it_has_not_settled() {
    let server = RedisServer::shared().await;
    let (transport, raw, topic) = (connect(server).await, Raw::connect(server).await, topic());
    publish(&transport, &events(&topic, 0..1_200)).await;
    let patient = |name: &str| {
        let subscription = subscription("g", &topic).member(name);
        subscription.takeover_after(Duration::from_secs(3600))
    };
    let mut leaver = transport.subscribe(patient("leaver")).await.unwrap();
    let deliveries = take(&mut leaver, 1_100).await;
    let settler = leaver.settler();
    ack(&leaver, &deliveries[..100]).await;
    close(leaver).await;
    let token = deliveries[100].token();
    assert!(!settler.is_current(token));
    let result = settler.settle(&[(token, Settlement::Ack)]).await.remove(0);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Stale);
    // With entries pending the name must stay, or they would be gone.
    assert_eq!(raw.members(&topic, "g").await, ["leaver"]);

    let mut heir = transport.subscribe(patient("heir")).await.unwrap();
    let inherited = take(&mut heir, 1_100).await;
    let mut inherited_ids = ids(&inherited);
    inherited_ids.sort_unstable();
    assert_eq!(inherited_ids, numbered_ids(100..1_200));
    assert!(ack(&heir, &inherited).await.iter().all(Result::is_ok));
    ensure_quiet(&mut heir).await;
    close(heir).await;
}

#[tokio::test]
async fn a_member_whose_caller_reads_nothing_takes_no_more_than_its_bound() {
    let server = RedisServer::shared().await;
    let transport = connect_with(server, |config| {
        config.read_ahead = 100;
        config.count = 50;
    })
    .await;
    let (raw, topic) = (Raw::connect(server).await, topic());
    let idle = transport
        .subscribe(subscription("g", &topic).member("idle"))
        .await
        .unwrap();
    publish(&transport, &events(&topic, 0..3_000)).await;
    eventually("the bound", async || {
        raw.pending(&topic, "g", Some("idle")).await >= 100
    })
    .await;
    let mut busy = transport
        .subscribe(subscription("g", &topic).member("busy"))
        .await
        .unwrap();
    let mut taken = 0;
    // Everything but what the idle one has goes to the busy one.
    while taken + raw.pending(&topic, "g", Some("idle")).await < 3_000 {
        let deliveries = busy.recv(1_000).await.unwrap();
        taken += deliveries.len();
        ack(&busy, &deliveries).await;
    }
    assert!(taken >= 2_850, "{taken}");
    close(idle).await;
    close(busy).await;
}

#[tokio::test]
async fn a_member_takes_no_more_in_hand_than_its_bound_until_something_is_settled() {
    let server = RedisServer::shared().await;
    let transport = connect_with(server, |config| config.max_pending = 30).await;
    let (raw, topic) = (Raw::connect(server).await, topic());
    publish(&transport, &events(&topic, 0..100)).await;
    let mut subscriber = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    let first = take(&mut subscriber, 30).await;
    ensure_quiet(&mut subscriber).await;
    assert_eq!(raw.pending(&topic, "g", None).await, 30);
    assert!(
        ack(&subscriber, &first[..10])
            .await
            .iter()
            .all(Result::is_ok)
    );
    let second = take(&mut subscriber, 10).await;
    assert_eq!(ids(&second), numbered_ids(30..40));
    ensure_quiet(&mut subscriber).await;
    assert!(
        ack(&subscriber, &first[10..])
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert!(ack(&subscriber, &second).await.iter().all(Result::is_ok));
    for start in [40, 70] {
        let taken = take(&mut subscriber, 30).await;
        assert_eq!(ids(&taken), numbered_ids(start..start + 30));
        assert!(ack(&subscriber, &taken).await.iter().all(Result::is_ok));
    }
    close(subscriber).await;
}

#[tokio::test]
async fn new_events_come_beside_what_dead_members_left() {
    let server = RedisServer::shared().await;
    let (transport, topic) = (connect(server).await, topic());
    let mortal = || subscription("g", &topic).takeover_after(TAKEOVER);
    publish(&transport, &events(&topic, 0..500)).await;
    let mut dead = transport.subscribe(mortal()).await.unwrap();
    take(&mut dead, 500).await;
    drop(dead);
    let mut heir = transport.subscribe(mortal()).await.unwrap();
    publish(&transport, &events(&topic, 500..600)).await;
    // The new ones don't wait for the takeover, and it not for them.
    let new = take(&mut heir, 100).await;
    assert_eq!(ids(&new), numbered_ids(500..600));
    let stop = AtomicBool::new(false);
    let publishing = async {
        let mut next = 600;
        while !stop.load(Ordering::SeqCst) {
            publish(&transport, &events(&topic, next..next + 10)).await;
            next += 10;
        }
        next
    };
    let receiving = async {
        let mut inherited = HashSet::new();
        while inherited.len() < 500 {
            let deliveries = recv_again(&mut heir, 1_000).await;
            assert!(ack(&heir, &deliveries).await.iter().all(Result::is_ok));
            inherited.extend(
                ids(&deliveries)
                    .into_iter()
                    .filter(|id| &**id < "event-00500"),
            );
        }
        stop.store(true, Ordering::SeqCst);
    };
    let (published, ()) = tokio::join!(publishing, receiving);
    assert!(published > 600);
    close(heir).await;
}

#[tokio::test]
async fn a_read_asks_for_as_much_and_waits_as_long_as_is_set() {
    let server = RedisServer::start().await.unwrap();
    let address = server.url().strip_prefix("redis://").unwrap();
    let mut monitor = BufReader::new(TcpStream::connect(address).await.unwrap());
    monitor.write_all(b"MONITOR\r\n").await.unwrap();
    let mut line = String::new();
    monitor.read_line(&mut line).await.unwrap();
    assert_eq!(line, "+OK\r\n");
    let transport = connect_with(&server, |config| {
        config.block = Duration::from_millis(123);
        config.count = 7;
    })
    .await;
    let subscriber = transport
        .subscribe(subscription("g", &topic()))
        .await
        .unwrap();
    let read = timeout(PATIENCE, async {
        // A sign of life reads too, and never waits.
        while !(line.contains("\"XREADGROUP\"") && line.contains("\"BLOCK\"")) {
            line.clear();
            monitor.read_line(&mut line).await.unwrap();
        }
    });
    read.await.expect("the member reads");
    let wanted = "\"COUNT\" \"7\" \"BLOCK\" \"123\" \"STREAMS\"";
    assert!(line.contains(wanted), "{line}");
    close(subscriber).await;
}
