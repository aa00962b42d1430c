//! What the tests share.

use std::time::Duration;

use polybus_core::transport::{
    AckToken, Delivery, Outcome, Outgoing, Publisher, Settlement, Settler, Subscriber,
    Subscription, Transport,
};
use polybus_core::{Event, Result, Topic};
use polybus_redis_streams::{RedisConfig, RedisSubscriber, RedisTransport};
use polybus_test_support::{RedisServer, unique_name};
use tokio::time::{Instant, sleep, timeout};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The server itself, past the transport.
pub(crate) struct Raw(redis::aio::MultiplexedConnection);

impl Raw {
    pub(crate) async fn connect(server: &RedisServer) -> Self {
        let client = redis::Client::open(server.url()).unwrap();
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = client.get_multiplexed_async_connection_with_config(&config);
        Self(connection.await.unwrap())
    }

    /// A command, its words divided by blanks.
    pub(crate) async fn call<T: redis::FromRedisValue>(&self, command: &str) -> T {
        let words: Vec<&str> = command.split(' ').collect();
        self.words(&words).await
    }

    pub(crate) async fn words<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        let result = command.query_async(&mut self.0.clone()).await;
        result.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// How many entries are pending for a group, or for a member of it.
    pub(crate) async fn pending(&self, stream: &Topic, group: &str, member: Option<&str>) -> usize {
        let mut words = vec!["XPENDING", stream.name(), group, "-", "+", "100000"];
        words.extend(member);
        let pending: Vec<redis::Value> = self.words(&words).await;
        pending.len()
    }

    /// The names of a group's members.
    pub(crate) async fn members(&self, stream: &Topic, group: &str) -> Vec<String> {
        let members: Vec<Vec<redis::Value>> = self
            .words(&["XINFO", "CONSUMERS", stream.name(), group])
            .await;
        let name = |member: &Vec<redis::Value>| redis::from_redis_value_ref(&member[1]).unwrap();
        members.iter().map(name).collect()
    }
}

pub(crate) fn topic() -> Topic {
    Topic::new(unique_name("stream"))
}

pub(crate) async fn connect(server: &RedisServer) -> RedisTransport {
    connect_with(server, |_| {}).await
}

pub(crate) async fn connect_with(
    server: &RedisServer,
    change: impl FnOnce(&mut RedisConfig),
) -> RedisTransport {
    let mut config = RedisConfig::new(server.url());
    change(&mut config);
    RedisTransport::connect(config).await.unwrap()
}

pub(crate) fn event(number: usize) -> Event {
    let id = format!("event-{number:05}");
    let builder = Event::builder("test.numbered")
        .source("test")
        .id(id.as_str());
    builder.key("key").data(id).build().unwrap()
}

pub(crate) fn events(topic: &Topic, numbers: std::ops::Range<usize>) -> Vec<Outgoing> {
    numbers
        .map(|number| Outgoing::new(topic.clone(), event(number)))
        .collect()
}

pub(crate) async fn publish(transport: &RedisTransport, batch: &[Outgoing]) {
    let outcomes = transport.publisher().await.unwrap().publish(batch).await;
    assert_eq!(outcomes.len(), batch.len());
    for outcome in outcomes {
        assert!(outcome.is_accepted(), "{outcome:?}");
    }
}

pub(crate) fn subscription(group: &str, topic: &Topic) -> Subscription {
    Subscription::new(group, [topic.clone()])
}

/// Receives exactly so many deliveries.
pub(crate) async fn take(subscriber: &mut RedisSubscriber, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let missing = count - taken.len();
        let received = timeout(PATIENCE, subscriber.recv(missing)).await;
        let received = received.unwrap_or_else(|_| panic!("{missing} of {count} did not come"));
        taken.extend(received.unwrap());
    }
    taken
}

/// As [`take`], over the errors of a server that comes back.
pub(crate) async fn recv_again(subscriber: &mut RedisSubscriber, max: usize) -> Vec<Delivery> {
    let received = timeout(PATIENCE, async {
        loop {
            match subscriber.recv(max).await {
                Ok(deliveries) => return deliveries,
                Err(error) => assert!(error.retryable(), "{error:?}"),
            }
        }
    });
    received
        .await
        .expect("the server is back, and nothing comes")
}

/// Fails if anything comes within a short time.
pub(crate) async fn ensure_quiet(subscriber: &mut RedisSubscriber) {
    if let Ok(received) = timeout(Duration::from_millis(300), subscriber.recv(10)).await {
        panic!("nothing was to come: {received:?}");
    }
}

pub(crate) async fn ack(subscriber: &RedisSubscriber, deliveries: &[Delivery]) -> Vec<Result<()>> {
    settle(subscriber, deliveries, Settlement::Ack).await
}

pub(crate) async fn settle(
    subscriber: &RedisSubscriber,
    deliveries: &[Delivery],
    settlement: Settlement,
) -> Vec<Result<()>> {
    let tokens: Vec<(AckToken, Settlement)> = deliveries
        .iter()
        .map(|delivery| (delivery.token(), settlement))
        .collect();
    subscriber.settler().settle(&tokens).await
}

pub(crate) fn ids(deliveries: &[Delivery]) -> Vec<String> {
    let id = |delivery: &Delivery| delivery.event().unwrap().id().to_owned();
    deliveries.iter().map(id).collect()
}

pub(crate) fn numbered_ids(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("event-{number:05}")).collect()
}

pub(crate) fn count_accepted(outcomes: &[Outcome]) -> usize {
    outcomes
        .iter()
        .filter(|outcome| outcome.is_accepted())
        .count()
}

pub(crate) async fn close(subscriber: RedisSubscriber) {
    subscriber.close(Instant::now() + PATIENCE).await.unwrap();
}

/// Asks until the answer is yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !ask().await {
        assert!(Instant::now() < deadline, "{what} did not happen");
        sleep(Duration::from_millis(10)).await;
    }
}
