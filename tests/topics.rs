//! What `topics().ensure()` makes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use polybus::{Bus, Config};

const CONFIG: &str = r#"
    [service]
    name = "shop"
    [transports.local]
    kind = "memory"
    prefix = "test."
    [[routes]]
    pattern = "order.*"
    transport = "local"
    topic = "orders"
    [[routes]]
    pattern = "user.*"
    transport = "local"
    topic = "users"
    [[routes]]
    pattern = "*"
    transport = "local"
    topic = "all-{type}"
    [subscriptions.mailer]
    group = "mails"
    retry = { delayed = { pauses = ["1m", "1h"] } }
    [subscriptions.silent]
    dead_letter = false
"#;

async fn bus() -> Bus {
    let config = Config::parse(CONFIG, "test.toml").unwrap();
    Bus::builder().config(config).build().await.unwrap()
}

async fn exist(bus: &Bus, topics: &[&str]) -> Vec<bool> {
    let mut exist = Vec::new();
    for topic in topics {
        let described = bus.topics().describe("local", (*topic).to_owned()).await;
        exist.push(described.unwrap().is_some());
    }
    exist
}

const OF_USERS: [&str; 4] = [
    "test.users",
    "test.users.dlq",
    "test.users.retry.mails.1m",
    "test.users.retry.mails.1h",
];

const OF_ORDERS: [&str; 4] = [
    "test.orders",
    "test.orders.dlq",
    "test.orders.retry.mails.1m",
    "test.orders.retry.mails.1h",
];

#[tokio::test]
async fn topics_of_what_the_config_subscribes_are_made_for_every_topic_of_a_route() {
    let bus = bus().await;
    bus.topics().ensure().await.unwrap();
    assert_eq!(exist(&bus, &OF_USERS).await, [true; 4]);
    assert_eq!(exist(&bus, &OF_ORDERS).await, [true; 4]);
    let others = ["test.users.retry.shop.1m", "test.users.dlq.dlq"];
    assert_eq!(exist(&bus, &others).await, [false; 2]);
    bus.topics().ensure().await.unwrap();
}

#[tokio::test]
async fn a_subscription_that_runs_needs_those_of_what_it_reads() {
    let bus = bus().await;
    let mailer = bus.subscribe("mailer").on_pattern("user.*", async || {});
    mailer.start().await.unwrap();
    bus.topics().ensure().await.unwrap();
    assert_eq!(exist(&bus, &OF_USERS).await, [true; 4]);
    assert_eq!(exist(&bus, &OF_ORDERS).await, [true, false, false, false]);
}
