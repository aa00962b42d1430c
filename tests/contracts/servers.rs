//! Formats on a real Redis and a real Kafka: what other programs find there, and what they write.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use polybus::transport::{Outgoing, Publisher, RawRecord, Subscriber, Subscription, Transport};
use polybus::{Bus, Config, Event, Headers, Outcome, RawEvent, State, Topic};
use polybus_test_support::{KafkaServer, RedisServer, unique_name};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::timeout;

const TRANSPORTS: [&str; 2] = ["redis", "kafka"];

/// One topic on both servers, whose records have a format. Without one they are the transport's own.
async fn bus(topic: &str, format: Option<&str>) -> Vec<(&'static str, Bus)> {
    let (redis, kafka) = tokio::join!(RedisServer::shared(), KafkaServer::shared());
    let format = format.map(|format| format!("format = '{format}'"));
    let format = format.unwrap_or_default();
    let mut buses = Vec::new();
    for transport in TRANSPORTS {
        let text = format!(
            "service.name = 'policies'\n\
             [transports.redis]\nkind = 'redis-streams'\nurl = '{}'\n\
             [transports.kafka]\nkind = 'kafka'\nbrokers = ['{}']\n\
             [[routes]]\npattern = 'policy.created'\ntransport = '{transport}'\ntopic = '{topic}'\n{format}\n\
             [subscriptions.s]\ngroup = '{topic}'\n",
            redis.url(),
            kafka.brokers(),
        );
        let config = Config::parse(&text, "polybus.toml").unwrap();
        let bus = Bus::builder().config(config).build().await.unwrap();
        bus.topics().ensure().await.unwrap();
        buses.push((transport, bus));
    }
    buses
}

fn event() -> Event {
    Event::builder("policy.created")
        .id("e1")
        .source("policies")
        .key("p1")
        .json(&json!({ "number": "POL-1" }))
        .unwrap()
        .build()
        .unwrap()
}

/// The next record of a topic as it is on the server.
async fn raw_record(bus: &Bus, transport: &str, topic: &str) -> RawRecord {
    let group = unique_name("look");
    let subscription = Subscription::new(group, [Topic::new(topic.to_owned())]);
    let transport = bus.transport(transport).unwrap();
    let mut subscriber = transport.subscribe(subscription).await.unwrap();
    let deliveries = timeout(Duration::from_secs(60), subscriber.recv(1)).await;
    let deliveries = deliveries.expect("a record within a minute").unwrap();
    deliveries[0].event().unwrap_err().record.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn other_programs_find_the_shape_they_know() {
    for (format, expected) in [
        ("plain", json!({ "number": "POL-1" })),
        (
            "flat",
            json!({ "id": "e1", "type": "policy.created", "source": "policies", "version": "1.0",
                "payload": { "number": "POL-1" } }),
        ),
        (
            "domain",
            json!({ "id": "e1", "type": "policy.created", "aggregateId": "p1",
                "aggregateType": "Policy", "version": 1, "data": { "number": "POL-1" },
                "metadata": { "source": "policies" } }),
        ),
    ] {
        let topic = unique_name("formats");
        let own = bus(&topic, None).await;
        for (index, (transport, bus)) in bus(&topic, Some(format)).await.into_iter().enumerate() {
            let event = event().to_builder().without_time().build().unwrap();
            bus.publish(event).await.unwrap();
            let record = raw_record(&own[index].1, transport, &topic).await;
            let value: Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
            assert_eq!(value, expected, "{format} on {transport}");
            if transport == "kafka" {
                assert_eq!(record.key.as_deref(), Some(&b"p1"[..]));
                assert!(record.headers.is_empty(), "{:?}", record.headers);
            }
        }
    }
}

#[derive(Clone, Default)]
struct Seen {
    events: Arc<Mutex<Vec<Event>>>,
    more: Arc<Notify>,
}

async fn see(RawEvent(event): RawEvent, State(seen): State<Seen>) {
    seen.events.lock().unwrap().push(event);
    seen.more.notify_one();
}

/// What a subscription of a bus handles, up to a number of events.
async fn handled(bus: &Bus, count: usize) -> Vec<Event> {
    let seen = Seen::default();
    bus.subscribe("s")
        .state(seen.clone())
        .on_any(see)
        .start()
        .await
        .unwrap();
    let all = async {
        while seen.events.lock().unwrap().len() < count {
            seen.more.notified().await;
        }
    };
    timeout(Duration::from_secs(60), all)
        .await
        .expect("all events within a minute");
    bus.close("10s").await.unwrap().into_result().unwrap();
    std::mem::take(&mut *seen.events.lock().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_holds_foreign_records_structured_ones_and_our_own_side_by_side() {
    let topic = unique_name("formats");
    let own = bus(&topic, None).await;
    let structured = bus(&topic, Some("structured")).await;
    let foreign = bus(&topic, Some("metadata_payload")).await;
    for index in 0..TRANSPORTS.len() {
        let (transport, own) = &own[index];
        own.publish(event()).await.unwrap();
        let second = event().to_builder().id("e2").build().unwrap();
        structured[index].1.publish(second).await.unwrap();
        let value = r#"{"metadata":{"eventId":"e3","eventType":"policy.created","source":"cms"},"payload":7}"#;
        let record = RawRecord::new(None, Headers::new(), Some(value.into()));
        let publisher = own.transport(transport).unwrap().publisher().await.unwrap();
        let outgoing = Outgoing::raw(Topic::new(topic.clone()), record);
        let outcomes = publisher.publish(&[outgoing]).await;
        assert!(
            matches!(outcomes[..], [Outcome::Accepted(_)]),
            "{outcomes:?}"
        );

        let events = handled(&foreign[index].1, 3).await;
        let mut found: Vec<_> = events
            .iter()
            .map(|event| (event.id(), event.source()))
            .collect();
        found.sort_unstable();
        let expected = [("e1", "policies"), ("e2", "policies"), ("e3", "cms")];
        assert_eq!(found, expected, "on {transport}");
    }
}
