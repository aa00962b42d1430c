//! The same on a real Redis and a real Kafka.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use polybus::transport::{Admin, Settlement, Settler, Subscriber, Subscription, Transport};
use polybus::{Bus, Config, ErrorKind, Payload, Result, Start, Text, Topic, Transaction};
use polybus_test_support::{KafkaServer, RedisServer, unique_name};
use tokio::time::{Instant, timeout};

use super::shop::{OrderPlaced, StockReserved, order, stock};

/// Names the config of the process that is killed.
const WORKER_CONFIG: &str = "POLYBUS_TEST_WORKER_CONFIG";

const PATIENCE: Duration = Duration::from_secs(90);

/// A config whose events all travel on one transport, and the names of its topics.
struct Place {
    text: String,
    orders: String,
    stock: String,
}

impl Place {
    fn new(name: &str, transport: &str) -> Self {
        let (orders, stock) = (unique_name("orders"), unique_name("stock"));
        let text = format!(
            r#"
            [service]
            name = "shop-{orders}"
            [transports.{name}]
            {transport}
            [[routes]]
            pattern = "order.*"
            transport = "{name}"
            topic = "{orders}"
            [[routes]]
            pattern = "stock.*"
            transport = "{name}"
            topic = "{stock}"
            "#
        );
        Self {
            text,
            orders,
            stock,
        }
    }

    async fn bus(&self) -> Bus {
        let config = Config::parse(&self.text, "shop.toml").unwrap();
        let bus = Bus::builder().config(config).build().await.unwrap();
        bus.topics().ensure().await.unwrap();
        bus
    }
}

/// The numbers of the events of a topic that are committed, which are this many or more.
async fn numbers(bus: &Bus, transport: &str, topic: &str, at_least: usize) -> Vec<u32> {
    let transport = bus.transport(transport).unwrap();
    let topic = Topic::new(topic);
    let subscription = Subscription::new(unique_name("reader"), [topic]);
    let mut member = transport.subscribe(subscription).await.unwrap();
    let settler = member.settler();
    let mut numbers = Vec::new();
    loop {
        // Silence is the end only behind what must come.
        let wait = match numbers.len() < at_least {
            true => PATIENCE,
            false => Duration::from_secs(2),
        };
        let Ok(came) = timeout(wait, member.recv(500)).await else {
            break;
        };
        let came = came.unwrap();
        for delivery in &came {
            let stored: StockReserved = polybus::Codec::decode(delivery.event().unwrap()).unwrap();
            numbers.push(stored.order);
        }
        let acks: Vec<_> = came
            .iter()
            .map(|it| (it.token(), Settlement::Ack))
            .collect();
        settler.settle(&acks).await;
    }
    member.close(Instant::now() + PATIENCE).await.unwrap();
    numbers.sort_unstable();
    numbers
}

async fn all_or_none(place: &Place, transport: &str) {
    let bus = place.bus().await;
    for number in 0..20 {
        let outcome: Result<()> = bus
            .transaction(transport, async |tx| {
                tx.publish(order(number)).await?;
                tx.publish(stock(number)).await?;
                match number % 2 {
                    0 => Ok(()),
                    _ => Err(polybus::Error::new(ErrorKind::Handler, "odd")),
                }
            })
            .await;
        assert_eq!(outcome.is_ok(), number % 2 == 0, "{outcome:?}");
    }
    let even: Vec<u32> = (0..20).step_by(2).collect();
    assert_eq!(numbers(&bus, transport, &place.stock, 10).await, even);
    assert_eq!(numbers(&bus, transport, &place.orders, 10).await, even);
    bus.close("10s").await.unwrap().into_result().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_on_redis_are_stored_whole() {
    let server = RedisServer::shared().await;
    let transport = format!("kind = \"redis-streams\"\nurl = \"{}\"", server.url());
    let place = Place::new("redis", &transport);
    all_or_none(&place, "redis").await;

    let bus = place.bus().await;
    let handler = async |_: Payload<OrderPlaced>, _: Transaction| {};
    let error = bus.subscribe("once").on(handler).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(error.transport(), Some("redis"));
}

fn kafka(server: &KafkaServer, more: &str) -> String {
    let brokers = server.brokers();
    format!("kind = \"kafka\"\nbrokers = [\"{brokers}\"]\nsession_timeout = \"6s\"\n{more}")
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_on_kafka_are_stored_whole() {
    let place = Place::new("kafka", &kafka(KafkaServer::shared().await, ""));
    all_or_none(&place, "kafka").await;
}

async fn reserve(Payload(placed): Payload<OrderPlaced>, tx: Transaction) -> Result<()> {
    // Two events for each, of which none may be missing.
    tx.publish(stock(placed.order)).await?;
    tokio::time::sleep(Duration::from_millis(u64::from(placed.order % 3))).await;
    tx.publish(stock(placed.order)).await
}

/// The process that is killed: handles orders until then.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the process that another test starts and kills"]
async fn worker() {
    let path = std::env::var(WORKER_CONFIG).expect("started by the test that kills it");
    let bus = Bus::from_file(path).await.unwrap();
    let subscription = bus.subscribe("reserve").on(reserve).start().await.unwrap();
    subscription.ended().await;
    panic!("{:?}", subscription.status().last_error);
}

/// Kills the process when it is dropped, too.
struct Worker(Child);

impl Worker {
    fn start(config: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "servers::worker", "--ignored", "--nocapture"])
            .env(WORKER_CONFIG, config)
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SIGKILL.
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Waits until something has been stored beyond what there was.
async fn progress(bus: &Bus, topic: &str, beyond: u64) -> u64 {
    let end = Instant::now() + PATIENCE;
    loop {
        let described = bus.topics().describe("kafka", topic).await.unwrap();
        let events = described.unwrap().events;
        if events > beyond {
            return events;
        }
        assert!(Instant::now() < end, "nothing is stored beyond {beyond}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_take_effect_once_though_their_process_is_killed() {
    const EVENTS: u32 = 4_000;
    const KILLS: u64 = 6;
    let id = unique_name("shop");
    // Small steps, so that there are many to be killed in.
    let settings = format!("transactional_id = \"{id}\"\ndelivery_deadline = \"5s\"");
    let mut place = Place::new("kafka", &kafka(KafkaServer::shared().await, &settings));
    place.text += "[subscriptions.reserve]\nmax_in_flight = 50\nconcurrency = 50\n";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.toml");
    std::fs::write(&path, &place.text).unwrap();
    // Who looks on has an id of its own: it would shut the worker out.
    let mine = place.text.replace(&id, &unique_name("other"));
    let watching = Place {
        text: mine,
        orders: place.orders.clone(),
        stock: place.stock.clone(),
    };
    let bus = watching.bus().await;
    for outcome in bus.publish_all((0..EVENTS).map(order)).await {
        outcome.into_result().unwrap();
    }
    let mut stored = 0;
    for kill in 0..KILLS {
        let worker = Worker::start(&path);
        stored = progress(&bus, &place.stock, stored + 40 * kill).await;
        // At another point of a step each time.
        tokio::time::sleep(Duration::from_millis(7 * kill)).await;
        drop(worker);
    }
    let group: Text = format!("shop-{}", place.orders).into();
    let orders = [Topic::new(place.orders.as_str())];
    let left = async || {
        let admin = bus.transport("kafka").unwrap().admin();
        admin.lag(&group, &orders).await.unwrap()[0].waiting
    };
    assert!(left().await > 0, "they were killed after the work was done");
    let worker = Worker::start(&path);
    let end = Instant::now() + PATIENCE;
    loop {
        let left = left().await;
        if left == 0 {
            break;
        }
        assert!(Instant::now() < end, "{left} are left");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(worker);
    let expected: Vec<u32> = (0..EVENTS).flat_map(|number| [number, number]).collect();
    assert!(
        numbers(&bus, "kafka", &place.stock, expected.len()).await == expected,
        "lost or duplicated"
    );
    bus.close("10s").await.unwrap().into_result().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exactly_once_subscription_on_kafka_goes_back_while_it_runs() {
    const EVENTS: u32 = 20;
    let settings = format!("transactional_id = \"{}\"", unique_name("shop"));
    let place = Place::new("kafka", &kafka(KafkaServer::shared().await, &settings));
    let bus = place.bus().await;
    let subscription = bus.subscribe("reserve").on(reserve).start().await.unwrap();
    for outcome in bus.publish_all((0..EVENTS).map(order)).await {
        outcome.into_result().unwrap();
    }
    let handled = async |count: u32| {
        let end = Instant::now() + PATIENCE;
        while subscription.counts().handled < u64::from(count) {
            assert!(Instant::now() < end, "{:?}", subscription.status());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    handled(EVENTS).await;
    subscription.seek(Start::Beginning, "10s").await.unwrap();
    handled(2 * EVENTS).await;
    let expected: Vec<u32> = (0..EVENTS).flat_map(|number| [number; 4]).collect();
    let stored = numbers(&bus, "kafka", &place.stock, expected.len()).await;
    assert_eq!(stored, expected);
    bus.close("10s").await.unwrap().into_result().unwrap();
}
