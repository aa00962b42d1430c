//! Who counts as a member when a group is to be moved.

use std::cell::Cell;
use std::slice::from_ref;
use std::time::Duration;

use polybus_core::transport::{Admin, Start, Transport};
use polybus_core::{ErrorKind, Result};
use polybus_redis_streams::RedisTransport;
use polybus_test_support::RedisServer;
use tokio::time::{sleep, timeout};

use crate::support::{
    Raw, close, connect, connect_with, events, eventually, ids, numbered_ids, publish,
    subscription, take, topic,
};

/// Longer than a member that was killed counts.
const LONG: Duration = Duration::from_secs(60);

async fn reset(transport: &RedisTransport, topic: &polybus_core::Topic) -> Result<()> {
    let admin = transport.admin();
    admin.reset("g", from_ref(topic), Start::Beginning).await
}

/// How long ago the server heard of the only member, in milliseconds.
async fn idle(raw: &Raw, topic: &polybus_core::Topic) -> u64 {
    let words = ["XINFO", "CONSUMERS", topic.name(), "g"];
    let members: Vec<Vec<redis::Value>> = raw.words(&words).await;
    let [member] = &members[..] else {
        panic!("one member: {members:?}");
    };
    // name, pending, idle
    redis::from_redis_value_ref(&member[5]).unwrap()
}

#[tokio::test]
async fn a_member_that_waits_for_events_shows_that_it_lives() {
    let server = RedisServer::shared().await;
    // Nothing else lets the server hear of it.
    let transport = connect_with(server, |config| config.block = Duration::from_secs(300)).await;
    let (raw, topic) = (Raw::connect(server).await, topic());
    let mut member = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    let last = Cell::new(0);
    eventually("a sign of life", async || {
        let now = idle(&raw, &topic).await;
        now < last.replace(now)
    })
    .await;
    let error = reset(&transport, &topic).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
    assert!(error.to_string().contains(member.member()), "{error}");
    // Its signs take nothing.
    assert_eq!(raw.pending(&topic, "g", None).await, 0);
    publish(&transport, &events(&topic, 0..3)).await;
    assert_eq!(ids(&take(&mut member, 3).await), numbered_ids(0..3));
    close(member).await;
}

#[tokio::test]
async fn who_left_with_events_unsettled_is_no_member_and_who_was_killed_is_none_in_time() {
    let server = RedisServer::shared().await;
    let (transport, raw, topic) = (connect(server).await, Raw::connect(server).await, topic());
    publish(&transport, &events(&topic, 0..1_200)).await;
    let mut member = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    take(&mut member, 1_100).await;
    close(member).await;
    assert!(raw.pending(&topic, "g", None).await >= 1_100);
    reset(&transport, &topic).await.unwrap();
    assert_eq!(raw.pending(&topic, "g", None).await, 0);

    let mut member = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    take(&mut member, 1).await;
    drop(member);
    let error = reset(&transport, &topic).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
    let moved = async {
        while reset(&transport, &topic).await.is_err() {
            sleep(Duration::from_millis(500)).await;
        }
    };
    timeout(LONG, moved)
        .await
        .expect("it counts for a while only");
    let mut member = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    assert_eq!(ids(&take(&mut member, 10).await), numbered_ids(0..10));
    close(member).await;
}
