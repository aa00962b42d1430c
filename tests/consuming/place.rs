//! A topic of a test's own, on one of the servers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polybus::transport::{
    Delivery, Settlement, Settler, Subscriber, Subscription as Membership, Transport,
};
use polybus::{Bus, Config, Event, Handler, Headers, Outcome, Subscription, Topic};
use polybus_test_support::{KafkaServer, RedisServer, unique_name};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// How long what is expected may take on a machine that is busy with everything else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// All of them. What is in memory belongs to one bus.
pub(crate) const EVERYWHERE: [&str; 3] = ["memory", "redis", "kafka"];

pub(crate) const TRANSPORTS: [&str; 2] = ["redis", "kafka"];

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
#[event(type = "work.asked", key = key)]
pub(crate) struct Work {
    pub(crate) key: String,
    pub(crate) number: usize,
}

/// A topic, a group, and the config of a bus that reads it.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) transport: &'static str,
    pub(crate) topic: String,
    pub(crate) group: String,
    /// The config, as a file holds it.
    pub(crate) text: String,
}

impl Place {
    /// On a server that all tests share. `settings` are those of the subscription `s`.
    pub(crate) async fn shared(transport: &'static str, settings: &str) -> Self {
        let url = match transport {
            "redis" => RedisServer::shared().await.url().to_owned(),
            "memory" => String::new(),
            _ => KafkaServer::shared().await.brokers().to_owned(),
        };
        Self::on(transport, &url, settings).await
    }

    /// On a server of its own.
    pub(crate) async fn on(transport: &'static str, url: &str, settings: &str) -> Self {
        let (topic, group) = (unique_name("work"), unique_name("workers"));
        let section = match transport {
            "redis" => format!("kind = 'redis-streams'\nurl = '{url}'\n"),
            "memory" => "kind = 'memory'\n".to_owned(),
            _ => format!(
                "kind = 'kafka'\nbrokers = ['{url}']\nsession_timeout = '6s'\n\
                 properties = {{ 'max.poll.interval.ms' = 6000 }}\n"
            ),
        };
        let text = format!(
            "service.name = 'test'\n[transports.{transport}]\n{section}\
             [[routes]]\npattern = 'work.*'\ntransport = '{transport}'\ntopic = '{topic}'\n\
             [subscriptions.s]\ngroup = '{group}'\n{settings}\n"
        );
        let place = Self {
            transport,
            topic,
            group,
            text,
        };
        if transport == "redis" {
            place.close(place.bus().await).await;
        }
        place
    }

    /// A bus, with its topics made.
    pub(crate) async fn bus(&self) -> Bus {
        let bus = self.connect().await;
        bus.topics().ensure().await.unwrap();
        bus
    }

    /// A bus.
    pub(crate) async fn connect(&self) -> Bus {
        let config = Config::parse(&self.text, "polybus.toml").unwrap();
        Bus::builder().config(config).build().await.unwrap()
    }

    pub(crate) async fn close(&self, bus: Bus) {
        bus.close("30s").await.unwrap().into_result().unwrap();
    }

    /// Waits until the group is done with everything.
    pub(crate) async fn wait_until_done(&self, bus: &Bus) {
        let done = async {
            loop {
                let lag = bus
                    .topics()
                    .lag(self.transport, &self.group, &self.topic)
                    .await;
                if lag.is_ok_and(|lag| lag.is_zero()) {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = timeout(PATIENCE, done).await;
        waited.unwrap_or_else(|_| panic!("the group is not done on {}", self.transport));
    }

    /// Reads the first `count` records of a topic, once it is there, in a group of its own.
    pub(crate) async fn read(&self, bus: &Bus, topic: &str, count: usize) -> Vec<Delivery> {
        let reading = async {
            while bus
                .topics()
                .describe(self.transport, topic)
                .await
                .unwrap()
                .is_none()
            {
                sleep(Duration::from_millis(50)).await;
            }
            let membership = Membership::new(unique_name("judge"), [Topic::new(topic.to_owned())]);
            let transport = bus.transport(self.transport).unwrap();
            let mut subscriber = transport.subscribe(membership).await.unwrap();
            let settler = subscriber.settler();
            let mut read = Vec::new();
            while read.len() < count {
                let deliveries = subscriber.recv(count - read.len()).await.unwrap();
                let acks: Vec<_> = deliveries
                    .iter()
                    .map(|it| (it.token(), Settlement::Ack))
                    .collect();
                assert!(settler.settle(&acks).await.iter().all(Result::is_ok));
                read.extend(deliveries);
            }
            read
        };
        let read = timeout(PATIENCE, reading).await;
        read.unwrap_or_else(|_| panic!("{count} records in `{topic}` on {}", self.transport))
    }

    /// The dead letters of the topic.
    pub(crate) async fn dead_letters(&self, bus: &Bus, count: usize) -> Vec<Delivery> {
        self.read(bus, &format!("{}.dlq", self.topic), count).await
    }
}

/// Starts the subscription of a place.
pub(crate) async fn subscribe<Args: 'static, S: Clone + Send + Sync + 'static>(
    bus: &Bus,
    state: S,
    handler: impl Handler<Args, S>,
) -> Subscription {
    let subscription = bus.subscribe("s").state(state).on(handler);
    subscription.start().await.unwrap()
}

/// Waits until the subscription's status says what went wrong, and returns it.
pub(crate) async fn wait_for_error(subscription: &Subscription) -> String {
    let failing = async {
        loop {
            if let Some(error) = subscription.status().last_error {
                return error.message;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = timeout(PATIENCE, failing).await;
    waited.expect("an error in the status")
}

/// A header of a dead letter as text.
pub(crate) fn header(headers: &Headers, name: &str) -> String {
    let value = headers
        .first(name)
        .unwrap_or_else(|| panic!("no header `{name}`"));
    String::from_utf8(value.to_vec()).unwrap()
}

/// Publishes numbers for each of several keys, mixed.
pub(crate) async fn publish(bus: &Bus, keys: usize, numbers: std::ops::Range<usize>) {
    let events = numbers.flat_map(|number| {
        (0..keys).map(move |key| {
            let key = format!("key-{key}");
            let data = json!({ "key": key, "number": number });
            Event::builder("work.asked").key(key).json(&data).unwrap()
        })
    });
    for outcome in bus.publish_all(events).await {
        assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    }
}

/// What was handled: each number, by key, in its order.
#[derive(Clone, Default)]
pub(crate) struct Handled {
    by_key: Arc<Mutex<BTreeMap<String, Vec<usize>>>>,
    changed: Arc<Notify>,
}

impl Handled {
    pub(crate) fn note(&self, work: &Work) {
        let mut by_key = self.by_key.lock().unwrap();
        by_key
            .entry(work.key.clone())
            .or_default()
            .push(work.number);
        self.changed.notify_one();
    }

    pub(crate) fn by_key(&self) -> BTreeMap<String, Vec<usize>> {
        self.by_key.lock().unwrap().clone()
    }

    pub(crate) fn total(&self) -> usize {
        self.by_key.lock().unwrap().values().map(Vec::len).sum()
    }

    pub(crate) async fn wait_for(&self, total: usize) {
        let waiting = async {
            while self.total() < total {
                self.changed.notified().await;
            }
        };
        let waited = timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("{} of {total} were handled", self.total()));
    }

    /// Each key saw all its numbers, as far as that is promised once and in their order.
    pub(crate) fn assert_all(
        &self,
        keys: usize,
        numbers: std::ops::Range<usize>,
        doubled: Doubled,
    ) {
        let by_key = self.by_key();
        assert_eq!(by_key.len(), keys, "{by_key:?}");
        for (key, seen) in by_key {
            let mut first: Vec<usize> = Vec::new();
            for number in &seen {
                if !first.contains(number) {
                    first.push(*number);
                }
            }
            if doubled == Doubled::AfterCrash {
                first.sort_unstable();
            }
            assert_eq!(first, numbers.clone().collect::<Vec<_>>(), "{key}");
            if doubled == Doubled::Never {
                assert_eq!(first.len(), seen.len(), "{key}: {seen:?}");
            }
        }
    }
}

/// Whether an event may be handled twice.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Doubled {
    Never,
    /// What was not settled comes again to the same member: the first time each is in its order.
    Again,
    /// What a member had that crashed comes to another, on Redis Streams beside what is new.
    AfterCrash,
}
