//! Sentinels: publishers and subscribers follow the server that takes writes.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use polybus_core::transport::{Outcome, Publisher, Transport};
use polybus_core::{ErrorKind, Topic};
use polybus_redis_streams::{RedisConfig, RedisPublisher, RedisTransport};
use polybus_test_support::{RedisSentinels, RedisServer, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    PATIENCE, Raw, ack, close, connect, count_accepted, event, events, ids, publish, recv_again,
    subscription, take, topic,
};

/// A failover takes a few seconds, and what the first attempts find out is waited for.
const FAILOVER: Duration = Duration::from_secs(60);

fn config(sentinels: &RedisSentinels) -> RedisConfig {
    RedisConfig::with_sentinels(sentinels.urls(), RedisSentinels::MASTER)
}

/// Publishes one event until it is accepted.
async fn publish_again(publisher: &RedisPublisher, topic: &Topic, number: usize) {
    let deadline = Instant::now() + FAILOVER;
    loop {
        match publisher
            .publish(&events(topic, number..number + 1))
            .await
            .remove(0)
        {
            Outcome::Accepted(_) => return,
            Outcome::Rejected(error) | Outcome::Unknown(error) => {
                assert!(error.retryable(), "{error:?}");
                assert!(Instant::now() < deadline, "{error:?}");
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Publishes in batches until not all of one are accepted; what became of each event. Tells after ten
/// batches.
async fn publish_until_it_fails(
    publisher: &RedisPublisher,
    topic: &Topic,
    under_way: &Notify,
) -> Vec<(usize, Outcome)> {
    let mut published = Vec::new();
    let mut numbers = 1_000..1_100;
    loop {
        let outcomes = publisher.publish(&events(topic, numbers.clone())).await;
        let failed = count_accepted(&outcomes) < outcomes.len();
        published.extend(numbers.clone().zip(outcomes));
        if failed {
            return published;
        }
        if published.len() == 1_000 {
            under_way.notify_one();
        }
        numbers = numbers.end..numbers.end + 100;
    }
}

#[tokio::test]
async fn a_failover_is_followed_by_publisher_and_subscriber() {
    let sentinels = RedisSentinels::start().await.unwrap();
    let transport = RedisTransport::connect(config(&sentinels)).await.unwrap();
    let (topic, publisher) = (topic(), transport.publisher().await.unwrap());
    let mut subscriber = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    let before = publisher.publish(&events(&topic, 0..500)).await;
    assert_eq!(count_accepted(&before), 500);
    let taken = take(&mut subscriber, 100).await;
    ack(&subscriber, &taken).await;

    // The first sentinel that is asked is away as well.
    sentinels.kill_sentinel(0).unwrap();
    let under_way = Notify::new();
    let (late, ()) = tokio::join!(
        publish_until_it_fails(&publisher, &topic, &under_way),
        async {
            under_way.notified().await;
            sentinels.primary().kill().await.unwrap();
        }
    );
    for number in 500..600 {
        publish_again(&publisher, &topic, number).await;
    }
    let raw = Raw::connect(sentinels.replica()).await;
    let role: Vec<redis::Value> = raw.call("ROLE").await;
    assert_eq!(role[0], redis::Value::BulkString(b"master".to_vec()));

    let mut seen: HashSet<String> = ids(&taken).into_iter().collect();
    let wanted = |number: usize| event(number).id().to_owned();
    let deadline = Instant::now() + FAILOVER;
    while !(500..600).all(|number| seen.contains(&wanted(number))) {
        assert!(Instant::now() < deadline, "{} have come", seen.len());
        let received = recv_again(&mut subscriber, 100).await;
        ack(&subscriber, &received).await;
        seen.extend(ids(&received));
    }
    tell_loss(&raw, &topic, late).await;
    close(subscriber).await;
}

/// Says how many accepted events are not there, of the first 500 and of `published`, and fails if one
/// that was rejected is.
async fn tell_loss(raw: &Raw, topic: &Topic, published: Vec<(usize, Outcome)>) {
    let entries: Vec<(String, HashMap<String, String>)> =
        raw.words(&["XRANGE", topic.name(), "-", "+"]).await;
    let kept: HashSet<&str> = entries
        .iter()
        .map(|(_, fields)| fields["data"].as_str())
        .collect();
    let wanted = |number: usize| event(number).id().to_owned();
    let mut accepted = 500;
    let mut lost = (0..500)
        .filter(|number| !kept.contains(&*wanted(*number)))
        .count();
    for (number, outcome) in published {
        let is_kept = kept.contains(&*wanted(number));
        match outcome {
            Outcome::Accepted(_) => {
                accepted += 1;
                lost += usize::from(!is_kept);
            }
            Outcome::Rejected(error) => assert!(!is_kept, "{number}: {error}"),
            Outcome::Unknown(_) => {}
        }
    }
    // Redis does not wait for its replica: what is lost is told, and no promise.
    println!("of {accepted} events accepted before the failover {lost} are lost");
}

/// Names `named` to whoever asks anything.
async fn fake_sentinel(named: u16) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let port = named.to_string();
    let answer = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 4096];
            while socket.read(&mut request).await.is_ok_and(|count| count > 0) {
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    url
}

#[tokio::test]
async fn a_sentinel_that_is_behind_the_times_or_away_or_silent_is_passed_over() {
    let sentinels = RedisSentinels::start().await.unwrap();
    let replica = sentinels.replica().url().rsplit_once(':').unwrap().1;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut urls = vec![
        fake_sentinel(replica.parse().unwrap()).await,
        fake_sentinel(free_port()).await,
        format!("redis://127.0.0.1:{}", free_port()),
        format!("redis://{}", silent.local_addr().unwrap()),
    ];
    let with = |urls: &[String], master: &str| {
        let mut config = RedisConfig::with_sentinels(urls, master);
        config.connect_deadline = Duration::from_secs(3);
        RedisTransport::connect(config)
    };
    let error = with(&urls[..1], "bus").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error:?}");
    assert!(error.to_string().contains("replica"), "{error}");
    for urls in [&urls[2..3], &urls[3..]] {
        let error = timeout(PATIENCE, with(urls, "bus"))
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error:?}");
        assert!(error.retryable());
    }
    urls.push(sentinels.urls().remove(0));
    let error = with(&urls[4..], "other").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error:?}");
    assert!(error.to_string().contains("`master`"), "{error}");
    let transport = with(&urls, "bus").await.unwrap();
    publish(&transport, &events(&topic(), 0..10)).await;
}

#[tokio::test]
async fn a_server_that_takes_no_writes_any_more_is_connected_to_anew() {
    let server = RedisServer::start().await.unwrap();
    let (transport, raw, topic) = (connect(&server).await, Raw::connect(&server).await, topic());
    let publisher = transport.publisher().await.unwrap();
    let one = events(&topic, 0..1);
    assert!(publisher.publish(&one).await[0].is_accepted());
    let connections = || async {
        let clients: String = raw.call("CLIENT LIST").await;
        let lines = clients.lines().filter_map(|line| line.split(' ').next());
        lines.map(str::to_owned).collect::<HashSet<String>>()
    };
    let before = connections().await;
    let _: () = raw.call("REPLICAOF 127.0.0.1 1").await;
    let error = publisher
        .publish(&one)
        .await
        .remove(0)
        .into_result()
        .unwrap_err();
    assert!(error.retryable(), "{error:?}");
    assert!(error.to_string().contains("READONLY"), "{error}");
    let _: () = raw.call("REPLICAOF NO ONE").await;
    assert!(publisher.publish(&one).await[0].is_accepted());
    // The one that events go by, and the one that shows it the way.
    let after = connections().await;
    assert_eq!(after.difference(&before).count(), 2, "{before:?} {after:?}");
}
