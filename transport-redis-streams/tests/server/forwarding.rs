//! What a script stores in the place of an entry, and how starts are noted.

use bytes::Bytes;
use polybus_core::transport::{
    Admin, Delivery, Headers, Outgoing, Settlement, Settler, Subscriber, Transport,
};
use polybus_redis_streams::{Format, Trim};
use polybus_test_support::RedisServer;

use crate::support::{
    Raw, close, connect, connect_with, events, ids, numbered_ids, publish, settle, subscription,
    take, topic,
};

#[tokio::test]
async fn what_is_forwarded_is_whole_whatever_the_settings_say_of_publishing() {
    let server = RedisServer::shared().await;
    let (from, to) = (topic(), topic());
    let writer = connect(server).await;
    publish(&writer, &events(&from, 0..300)).await;
    let transport = connect_with(server, |config| {
        config.trim = Some(Trim::MaxLen(1));
        config.format = Format::Plain;
    })
    .await;
    let mut subscriber = transport.subscribe(subscription("g", &from)).await.unwrap();
    let taken = take(&mut subscriber, 300).await;
    let mut why = Headers::new();
    why.push("why", Some(Bytes::from_static(b"failed")));
    let letter = |delivery: &Delivery| {
        let event = delivery.event().unwrap().clone();
        let letter = Outgoing::new(to.clone(), event).with_headers(why.clone());
        (delivery.token(), letter)
    };
    let batch: Vec<_> = taken.iter().map(letter).collect();
    for result in subscriber.settler().forward(&batch).await {
        result.unwrap();
    }
    close(subscriber).await;
    let raw = Raw::connect(server).await;
    assert_eq!(raw.pending(&from, "g", None).await, 0);
    let stored = transport.admin().browse(&to, &[], 1_000).await.unwrap();
    assert_eq!(ids(&stored), numbered_ids(0..300));
    assert!(stored.iter().all(|delivery| *delivery.headers() == why));
}

#[tokio::test]
async fn a_start_that_was_noted_is_seen_on_the_server_and_is_no_delivery() {
    let server = RedisServer::shared().await;
    let (raw, topic) = (Raw::connect(server).await, topic());
    let transport = connect(server).await;
    publish(&transport, &events(&topic, 0..1)).await;
    let count = async || {
        let words = ["XPENDING", topic.name(), "g", "-", "+", "10"];
        let pending: Vec<(String, String, u64, u64)> = raw.words(&words).await;
        pending[0].3
    };
    for round in 0..3_u32 {
        let mut subscriber = transport
            .subscribe(subscription("g", &topic))
            .await
            .unwrap();
        let taken = take(&mut subscriber, 1).await;
        assert_eq!(taken[0].attempt(), round + 1);
        let settler = subscriber.settler();
        assert_eq!(settler.begin(taken[0].token()).await.unwrap(), round);
        let expected = u64::from(round + 1) * 1_000_001;
        assert_eq!(
            count().await,
            expected,
            "deliveries, and a million for each start"
        );
        if round == 2 {
            // By who lives: it was not the end of its process.
            let released = settle(&subscriber, &taken, Settlement::Release).await;
            assert!(released[0].is_ok());
            assert!(count().await <= 4, "no start, whether or not it came again");
        }
        close(subscriber).await;
    }
}
