//! Dead letters and long pauses on a real Redis and a real Kafka.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polybus::{
    BoxError, Bus, Config, Context, Event, Letter, Purge, RawEvent, Replay, State, Subscription,
};
use polybus_test_support::{KafkaServer, RedisServer, unique_name};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(60);

struct Place {
    bus: Bus,
    /// By the transport's name.
    topics: [(&'static str, String); 2],
    group: String,
}

async fn place(settings: &str) -> Place {
    let (redis, kafka) = tokio::join!(RedisServer::shared(), KafkaServer::shared());
    let topics = [
        ("redis", unique_name("failing")),
        ("kafka", unique_name("failing")),
    ];
    let group = unique_name("worker");
    let text = format!(
        r#"
        [service]
        name = "{group}"
        [transports.redis]
        kind = "redis-streams"
        url = "{}"
        [transports.kafka]
        kind = "kafka"
        brokers = ["{}"]
        [[routes]]
        pattern = "redis.*"
        transport = "redis"
        topic = "{}"
        [[routes]]
        pattern = "kafka.*"
        transport = "kafka"
        topic = "{}"
        [subscriptions.worker]
        {settings}
        "#,
        redis.url(),
        kafka.brokers(),
        topics[0].1,
        topics[1].1,
    );
    let config = Config::parse(&text, "polybus.toml").unwrap();
    let bus = Bus::builder().config(config).build().await.unwrap();
    bus.topics().ensure().await.unwrap();
    Place { bus, topics, group }
}

/// What was handled, and what fails.
#[derive(Clone, Default)]
struct World {
    calls: Arc<Mutex<Vec<(String, u32)>>>,
    failing: Arc<Mutex<BTreeSet<String>>>,
}

async fn handle(
    RawEvent(event): RawEvent,
    context: Context,
    State(world): State<World>,
) -> Result<(), BoxError> {
    let call = (event.id().to_owned(), context.attempt());
    world.calls.lock().unwrap().push(call);
    match world.failing.lock().unwrap().contains(event.id()) {
        true => Err("it fails".into()),
        false => Ok(()),
    }
}

impl World {
    fn failing(ids: &[&str]) -> Self {
        let world = Self::default();
        let ids = ids.iter().map(ToString::to_string);
        world.failing.lock().unwrap().extend(ids);
        world
    }

    async fn start(&self, bus: &Bus) -> Subscription {
        let subscription = bus.subscribe("worker").state(self.clone());
        subscription.on_any(handle).start().await.unwrap()
    }

    fn attempts(&self, id: &str) -> Vec<u32> {
        let calls = self.calls.lock().unwrap();
        let of = calls.iter().filter(|(known, _)| known == id);
        of.map(|(_, attempt)| *attempt).collect()
    }
}

async fn publish(bus: &Bus, transport: &str, id: &str) {
    let event = Event::builder(format!("{transport}.work")).id(id).key(id);
    bus.publish(event.data(id.to_owned())).await.unwrap();
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn ids(letters: &[Letter]) -> BTreeSet<&str> {
    letters.iter().map(|it| it.event().unwrap().id()).collect()
}

#[tokio::test]
async fn letters_are_listed_replayed_and_purged() {
    let place = place(r#"retry = { max_attempts = 1, base = "10ms", max = "10ms" }"#).await;
    let bus = &place.bus;
    let world = World::failing(&["a", "b", "c"]);
    let subscription = world.start(bus).await;
    for (transport, _) in &place.topics {
        for id in ["a", "b", "c", "good"] {
            publish(bus, transport, id).await;
        }
    }
    eventually("all are put away", || {
        subscription.counts().dead_lettered == 6
    })
    .await;
    world.failing.lock().unwrap().clear();
    for (transport, topic) in &place.topics {
        let letters = bus.dead_letters(format!("{topic}.dlq"));
        let all = letters.list().await.unwrap();
        assert_eq!(ids(&all), BTreeSet::from(["a", "b", "c"]), "{transport}");
        let from = all[0].provenance();
        assert_eq!(
            (from.transport.as_str(), from.topic.as_str()),
            (*transport, topic.as_str())
        );
        assert_eq!(from.group, place.group);
        assert_eq!(
            all[0].event().unwrap().data().unwrap().as_ref(),
            all[0].event().unwrap().id().as_bytes()
        );
        assert!(all[0].headers().is_empty());

        let report = letters.replay(Replay::to_origin().limit(2)).await.unwrap();
        assert_eq!(report.replayed, 2, "{transport}");
        let report = letters.replay(Replay::to_origin()).await.unwrap();
        assert_eq!(report.replayed, 1, "{transport}: it goes on where it was");
        let report = letters.replay(Replay::to_origin()).await.unwrap();
        assert_eq!(report.replayed, 0, "{transport}: each once");
        assert_eq!(letters.list().await.unwrap().len(), 3, "they stay");

        assert_eq!(letters.purge(Purge::all()).await.unwrap(), 3);
        assert!(letters.list().await.unwrap().is_empty(), "{transport}");
    }
    eventually("what was replayed is handled", || {
        subscription.counts().handled == 8
    })
    .await;
    assert_eq!(subscription.counts().dead_lettered, 6);
    bus.close("10s").await.unwrap().into_result().unwrap();
}

#[tokio::test]
async fn letters_of_one_transport_are_replayed_to_another() {
    let place = place(r#"retry = { max_attempts = 1, base = "10ms", max = "10ms" }"#).await;
    let bus = &place.bus;
    let world = World::failing(&["a"]);
    let subscription = world.start(bus).await;
    publish(bus, "redis", "a").await;
    eventually("it is put away", || {
        subscription.counts().dead_lettered == 1
    })
    .await;
    world.failing.lock().unwrap().clear();
    let [(_, redis), (_, kafka)] = &place.topics;
    let letters = bus.dead_letters(format!("{redis}.dlq"));
    let elsewhere = Replay::to(kafka.as_str()).on("kafka");
    assert_eq!(letters.replay(elsewhere).await.unwrap().replayed, 1);
    eventually("it is handled from there", || {
        subscription.counts().handled == 1
    })
    .await;
    bus.close("10s").await.unwrap().into_result().unwrap();
}

#[tokio::test]
async fn long_pauses_are_made_in_topics_of_the_group() {
    let settings = r#"
        retry = { max_attempts = 4, base = "10ms", max = "20ms", delayed = { pauses = ["1s", "2s"], after_attempts = 2 } }
    "#;
    let place = place(settings).await;
    let bus = &place.bus;
    let world = World::failing(&["redis-bad", "kafka-bad"]);
    let subscription = world.start(bus).await;
    for (transport, _) in &place.topics {
        publish(bus, transport, &format!("{transport}-bad")).await;
    }
    eventually("both are put away", || {
        subscription.counts().dead_lettered == 2
    })
    .await;
    let counts = subscription.counts();
    assert_eq!((counts.retried, counts.delayed), (2, 4));
    for (transport, topic) in &place.topics {
        assert_eq!(world.attempts(&format!("{transport}-bad")), [1, 2, 3, 4]);
        let lag = bus
            .topics()
            .lag(transport, &place.group, topic.as_str())
            .await
            .unwrap();
        assert_eq!(lag.pending, 0, "{transport}");
        let letters = bus
            .dead_letters(format!("{topic}.dlq"))
            .list()
            .await
            .unwrap();
        let from = letters[0].provenance();
        assert_eq!((from.attempts, from.topic.as_str()), (4, topic.as_str()));
        let first = from.first_failed_at.unwrap();
        let apart = from.failed_at.unwrap().duration_since(first);
        assert!(apart.as_secs() >= 3, "{transport}: {apart:?}");
        let waited = format!("{topic}.retry.{}.2s", place.group);
        let described = bus.topics().describe(transport, waited).await.unwrap();
        assert_eq!(described.unwrap().events, 1, "{transport}");
    }
    bus.close("10s").await.unwrap().into_result().unwrap();
}

#[tokio::test]
async fn letters_are_replayed_to_the_group_they_failed_in_alone() {
    let settings = r#"
        retry = { max_attempts = 2, base = "10ms", max = "20ms", delayed = { pauses = ["1s"], after_attempts = 1 } }
    "#;
    let place = place(settings).await;
    let bus = &place.bus;
    let world = World::failing(&["redis-bad", "kafka-bad"]);
    let subscription = world.start(bus).await;
    let other = bus.subscribe("other").group(unique_name("other"));
    let other = other.on_any(async || {}).start().await.unwrap();
    for (transport, _) in &place.topics {
        publish(bus, transport, &format!("{transport}-bad")).await;
    }
    eventually("both are put away", || {
        subscription.counts().dead_lettered == 2
    })
    .await;
    world.failing.lock().unwrap().clear();
    for (transport, topic) in &place.topics {
        let letters = bus.dead_letters(format!("{topic}.dlq"));
        let report = letters.replay(Replay::to_its_group()).await.unwrap();
        assert_eq!((report.replayed, report.left), (1, 0), "{transport}");
    }
    eventually("both are handled", || subscription.counts().handled == 2).await;
    for (transport, topic) in &place.topics {
        let attempts = world.attempts(&format!("{transport}-bad"));
        assert_eq!(attempts, [1, 2, 1], "{transport}");
        let described = bus.topics().describe(transport, topic.as_str()).await;
        assert_eq!(described.unwrap().unwrap().events, 1, "{transport}");
    }
    assert_eq!(other.counts().received, 2);
    bus.close("10s").await.unwrap().into_result().unwrap();
}
