//! One config over a real Redis and a real Kafka: the same promises on both, at once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polybus::transport::{Settlement, Settler, Subscriber, Subscription as Membership, Transport};
use polybus::{BoxError, Bus, Config, Context, Event, Headers, Payload, RawEvent, State, Topic};
use polybus_test_support::{KafkaServer, RedisServer, unique_name};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", key = user_id)]
struct UserCreated {
    user_id: String,
    number: usize,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "deal.status.changed", key = deal_id)]
struct DealStatusChanged {
    deal_id: String,
    number: usize,
}

/// A config of its own topics and group on the shared servers.
struct Place {
    config: Config,
    users: String,
    deals: String,
    group: String,
}

impl Place {
    async fn new() -> Self {
        let (redis, kafka) = tokio::join!(RedisServer::shared(), KafkaServer::shared());
        let (users, deals) = (unique_name("user-events"), unique_name("deals"));
        let group = unique_name("deal-watch");
        let text = format!(
            r#"
            [service]
            name = "deal-monitor"
            [transports.redis]
            kind = "redis-streams"
            url = "{}"
            [transports.kafka]
            kind = "kafka"
            brokers = ["{}"]
            [[routes]]
            pattern = "user.*"
            transport = "redis"
            topic = "{users}"
            [[routes]]
            pattern = "deal.*"
            transport = "kafka"
            topic = "{deals}"
            [subscriptions.deal-watch]
            group = "{group}"
            retry = {{ max_attempts = 2, base = "10ms", max = "10ms" }}
            takeover_after = "2s"
            "#,
            redis.url(),
            kafka.brokers(),
        );
        let config = Config::parse(&text, "polybus.toml").unwrap();
        let place = Self {
            config,
            users,
            deals,
            group,
        };
        let bus = place.bus().await;
        bus.topics().ensure().await.unwrap();
        bus.close("10s").await.unwrap().into_result().unwrap();
        place
    }

    async fn bus(&self) -> Bus {
        Bus::builder()
            .config(self.config.clone())
            .build()
            .await
            .unwrap()
    }

    fn topics(&self) -> [(&str, &str); 2] {
        [("redis", &self.users), ("kafka", &self.deals)]
    }

    /// How far the group is behind, on both.
    async fn is_done(&self, bus: &Bus) -> bool {
        for (transport, topic) in self.topics() {
            if !bus
                .topics()
                .lag(transport, &self.group, topic)
                .await
                .unwrap()
                .is_zero()
            {
                return false;
            }
        }
        true
    }
}

/// What was handled: each number, and how often, by key.
#[derive(Clone, Default)]
struct Handled {
    by_key: Arc<Mutex<BTreeMap<String, Vec<usize>>>>,
    changed: Arc<Notify>,
}

impl Handled {
    fn note(&self, key: String, number: usize) {
        self.by_key
            .lock()
            .unwrap()
            .entry(key)
            .or_default()
            .push(number);
        self.changed.notify_one();
    }

    fn total(&self) -> usize {
        self.by_key.lock().unwrap().values().map(Vec::len).sum()
    }

    async fn wait_for(&self, total: usize) {
        let waiting = async {
            while self.total() < total {
                self.changed.notified().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        waited.unwrap_or_else(|_| panic!("{} of {total} were handled", self.total()));
    }

    /// Asserts that each key saw its numbers once and in order.
    fn assert_in_order(&self, keys: usize, numbers: std::ops::Range<usize>) {
        let by_key = self.by_key.lock().unwrap();
        assert_eq!(by_key.len(), 2 * keys);
        for (key, seen) in &*by_key {
            assert_eq!(*seen, numbers.clone().collect::<Vec<_>>(), "{key}");
        }
    }
}

async fn user(Payload(user): Payload<UserCreated>, State(handled): State<Handled>) {
    handled.note(user.user_id, user.number);
}

async fn deal(Payload(deal): Payload<DealStatusChanged>, State(handled): State<Handled>) {
    handled.note(deal.deal_id, deal.number);
}

async fn subscribe(bus: &Bus, handled: &Handled) {
    let subscription = bus
        .subscribe("deal-watch")
        .state(handled.clone())
        .on(user)
        .on(deal);
    subscription.start().await.unwrap();
}

/// Numbers for each of several users and deals, mixed.
async fn publish(bus: &Bus, keys: usize, numbers: std::ops::Range<usize>) {
    let events = numbers.flat_map(|number| {
        (0..keys).flat_map(move |key| {
            let (user_id, deal_id) = (format!("user-{key}"), format!("deal-{key}"));
            let builder = |event_type| Event::builder(event_type).source("test");
            let user = UserCreated {
                user_id: user_id.clone(),
                number,
            };
            let deal = DealStatusChanged {
                deal_id: deal_id.clone(),
                number,
            };
            [
                builder("user.created").key(user_id).json(&user).unwrap(),
                builder("deal.status.changed")
                    .key(deal_id)
                    .json(&deal)
                    .unwrap(),
            ]
        })
    });
    for outcome in bus.publish_all(events).await {
        outcome.into_result().unwrap();
    }
}

#[tokio::test]
async fn one_subscription_handles_what_both_servers_carry_once_and_in_order() {
    let place = Place::new().await;
    let bus = place.bus().await;
    let handled = Handled::default();
    subscribe(&bus, &handled).await;
    publish(&bus, 20, 0..50).await;
    handled.wait_for(2_000).await;
    bus.close("30s").await.unwrap().into_result().unwrap();
    handled.assert_in_order(20, 0..50);

    // The servers themselves say where the events are, and that the group is done with them.
    let redis = redis::Client::open(RedisServer::shared().await.url()).unwrap();
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    let length: u64 = redis::cmd("XLEN")
        .arg(&place.users)
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(length, 1_000);
    let ends = KafkaServer::shared()
        .await
        .end_offsets(&place.deals)
        .await
        .unwrap();
    assert_eq!(ends.iter().sum::<u64>(), 1_000);
    assert!(place.is_done(&place.bus().await).await);
}

#[tokio::test]
async fn a_service_that_stops_and_starts_goes_on_where_it_was() {
    let place = Place::new().await;
    let handled = Handled::default();
    for round in 0..3 {
        let bus = place.bus().await;
        // The first time the group starts at the beginning; later it goes on.
        publish(&bus, 5, round * 10..round * 10 + 10).await;
        subscribe(&bus, &handled).await;
        handled.wait_for((round + 1) * 100).await;
        bus.close("30s").await.unwrap().into_result().unwrap();
    }
    handled.assert_in_order(5, 0..30);
}

#[tokio::test]
async fn what_was_not_settled_at_a_crash_is_handled_by_the_next_member() {
    async fn hang(State(started): State<Handled>, RawEvent(event): RawEvent) {
        started.note(event.key().unwrap().to_owned(), 0);
        std::future::pending::<()>().await;
    }
    let place = Place::new().await;
    let started = Handled::default();
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let (config, started) = (place.config.clone(), started.clone());
        let crashing = runtime.spawn(async move {
            let bus = Bus::builder().config(config).build().await.unwrap();
            bus.subscribe("deal-watch")
                .state(started.clone())
                .on_any(hang)
                .start()
                .await
                .unwrap();
            publish(&bus, 5, 0..1).await;
            started.wait_for(10).await;
        });
        crashing.await.unwrap();
        // Every task and connection of the member ends here, with nothing settled.
        runtime.shutdown_background();
    }
    let bus = place.bus().await;
    let handled = Handled::default();
    subscribe(&bus, &handled).await;
    handled.wait_for(10).await;
    bus.close("30s").await.unwrap().into_result().unwrap();
    handled.assert_in_order(5, 0..1);
}

#[tokio::test]
async fn what_fails_for_good_is_put_away_on_the_server_it_came_from() {
    async fn fail(context: Context) -> Result<(), BoxError> {
        Err(format!("attempt {} failed", context.attempt()).into())
    }
    let place = Place::new().await;
    let bus = place.bus().await;
    let subscription = bus
        .subscribe("deal-watch")
        .on_any(fail)
        .start()
        .await
        .unwrap();
    publish(&bus, 1, 0..1).await;
    for (transport, topic) in place.topics() {
        let (event, headers) = dead_letter(&bus, transport, topic).await;
        let text = |name: &str| String::from_utf8(headers.first(name).unwrap().to_vec()).unwrap();
        assert_eq!(text("polybus-origin-transport"), transport);
        assert_eq!(text("polybus-origin-topic"), topic);
        assert_eq!(text("polybus-attempts"), "2");
        assert_eq!(text("polybus-reason"), "attempt 2 failed");
        assert!(event.key().unwrap().ends_with("-0"));
    }
    bus.close("30s").await.unwrap().into_result().unwrap();
    assert_eq!(subscription.counts().dead_lettered, 2);
    assert!(
        place.is_done(&place.bus().await).await,
        "the failed events are settled"
    );
}

/// The first dead letter of a topic, once its topic exists.
async fn dead_letter(bus: &Bus, transport: &str, topic: &str) -> (Event, Headers) {
    let letters = format!("{topic}.dlq");
    let found = async {
        while bus
            .topics()
            .describe(transport, letters.as_str())
            .await
            .unwrap()
            .is_none()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let membership = Membership::new(unique_name("judge"), [Topic::new(letters.as_str())]);
        let transport = bus.transport(transport).unwrap();
        let mut subscriber = transport.subscribe(membership).await.unwrap();
        let delivery = subscriber.recv(1).await.unwrap().remove(0);
        let settled = subscriber
            .settler()
            .settle(&[(delivery.token(), Settlement::Ack)])
            .await;
        assert!(settled[0].is_ok());
        (
            delivery.event().unwrap().clone(),
            delivery.headers().clone(),
        )
    };
    tokio::time::timeout(Duration::from_secs(60), found)
        .await
        .expect("the dead letter appears")
}

#[tokio::test]
async fn members_of_a_group_share_the_events_of_both_servers() {
    let place = Place::new().await;
    let (first, second) = (place.bus().await, place.bus().await);
    let handled = Handled::default();
    subscribe(&first, &handled).await;
    subscribe(&second, &handled).await;
    let sender = place.bus().await;
    publish(&sender, 20, 0..20).await;
    handled.wait_for(800).await;
    for bus in [first, second, sender] {
        bus.close("30s").await.unwrap().into_result().unwrap();
    }
    assert_eq!(
        handled.total(),
        800,
        "nothing is handled twice on a clean run"
    );
    let distinct: HashSet<(String, usize)> = {
        let by_key = handled.by_key.lock().unwrap();
        let pairs = by_key
            .iter()
            .flat_map(|(key, seen)| seen.iter().map(move |number| (key.clone(), *number)));
        pairs.collect()
    };
    assert_eq!(distinct.len(), 800);
}

#[tokio::test]
async fn a_test_bus_looks_on_at_real_servers_too() {
    let place = Place::new().await;
    let builder = Bus::builder().config(place.config.clone());
    let bus = polybus::TestBus::on(builder).await.unwrap();
    let handled = Handled::default();
    subscribe(&bus, &handled).await;
    publish(&bus, 5, 0..4).await;
    bus.settle().await;
    handled.assert_in_order(5, 0..4);
    bus.published::<UserCreated>().assert_len(20);
    bus.published::<DealStatusChanged>().assert_len(20);
    bus.dead_letters().assert_empty();
    bus.close("30s").await.unwrap().into_result().unwrap();
}

#[tokio::test]
async fn of_two_subscriptions_that_start_at_once_one_gets_the_group() {
    let place = Place::new().await;
    let bus = place.bus().await;
    let start = |name: &'static str| {
        let subscription = bus.subscribe(name).group(place.group.as_str());
        subscription.on_any(|| async {}).start()
    };
    let (first, second) = tokio::join!(start("deal-watch"), start("another"));
    assert_eq!(
        [first.is_ok(), second.is_ok()]
            .iter()
            .filter(|ok| **ok)
            .count(),
        1
    );
    let refused = first.err().or(second.err()).unwrap();
    assert_eq!(refused.kind(), polybus::ErrorKind::Config, "{refused}");
    bus.close("30s").await.unwrap().into_result().unwrap();
}
