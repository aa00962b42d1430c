use std::time::Duration;

use polybus::topic::{Cleanup, Limit, TopicAction};
use polybus::transport::TopicDescription;
use polybus::{Bus, ErrorKind, Event};
use polybus_test_support::{KafkaServer, RedisServer, unique_name};

use super::bus;

const DAY: Duration = Duration::from_secs(86_400);

async fn kafka(prefix: &str, topics: &str) -> Bus {
    let kafka = KafkaServer::shared().await;
    bus(&format!(
        r#"
        [service]
        name = "deals"
        prefix = "{prefix}."
        [transports.kafka]
        kind = "kafka"
        brokers = ["{}"]
        [[routes]]
        pattern = "deal.*"
        transport = "kafka"
        topic = "deals"
        [subscriptions.watch]
        {topics}
        "#,
        kafka.brokers()
    ))
    .await
}

/// What the tests below declare of `deals`.
const DEALS: &str = "[topics.deals]\npartitions = 2\nreplication = 1\nretention = \"7d\"\n\
    cleanup = \"delete\"\ncompression = \"zstd\"\nmax_message_size = \"2MiB\"\n\
    properties = { \"min.insync.replicas\" = 1 }\n";

async fn described(bus: &Bus) -> TopicDescription {
    let deals = bus.topics().describe("kafka", "deals").await.unwrap();
    deals.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_topics_are_made_and_changed_as_declared() {
    let prefix = unique_name("plan");
    let bus = kafka(&prefix, DEALS).await;
    let plan = bus.topics().plan().await.unwrap();
    assert_eq!(
        plan.steps().len(),
        2,
        "the topic and its dead letters: {plan}"
    );
    plan.apply().await.unwrap();
    assert!(bus.topics().plan().await.unwrap().is_empty());
    let deals = described(&bus).await;
    assert_eq!((deals.partitions, deals.replication), (2, Some(1)));
    assert_eq!(deals.settings.retention, Some(Limit::At(7 * DAY)));
    assert_eq!(deals.settings.max_message_size, Some(2 << 20));
    let listed = bus.topics().list("kafka").await.unwrap();
    assert!(
        listed
            .iter()
            .any(|it| *it == *format!("{prefix}.deals.dlq"))
    );
    assert!(!listed.iter().any(|it| it.starts_with("__")), "{listed:?}");

    let more = DEALS
        .replace("partitions = 2", "partitions = 4")
        .replace("7d", "30d");
    let bus = kafka(&prefix, &more).await;
    let plan = bus.topics().plan().await.unwrap();
    let text = plan.to_string();
    assert!(text.contains("partitions: 2 -> 4"), "{text}");
    assert!(text.contains("retention: 7d -> 30d"), "{text}");
    plan.apply().await.unwrap();
    let deals = described(&bus).await;
    assert_eq!(deals.partitions, 4);
    assert_eq!(deals.settings.retention, Some(Limit::At(30 * DAY)));
    // What was not changed is as it was.
    assert_eq!(deals.settings.max_message_size, Some(2 << 20));
    assert!(bus.topics().plan().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_topics_are_never_shrunk_and_replicas_never_moved() {
    let prefix = unique_name("plan");
    let first = DEALS.replace("partitions = 2", "partitions = 4");
    let bus = kafka(&prefix, &first).await;
    bus.topics().plan().await.unwrap().apply().await.unwrap();

    let fewer = DEALS
        .replace("7d", "1d")
        .replace("replication = 1", "replication = 3");
    let bus = kafka(&prefix, &fewer).await;
    let plan = bus.topics().plan().await.unwrap().allow_shrinking();
    let error = plan.apply().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let text = error.to_string();
    for part in [
        "partitions: 4 -> 2",
        "replication: 1 -> 3",
        "new topic",
        "reassign",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let deals = described(&bus).await;
    assert_eq!(deals.partitions, 4, "nothing was done");
    assert_eq!(deals.settings.retention, Some(Limit::At(7 * DAY)));
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_streams_are_made_with_their_groups_and_trimmed_as_declared() {
    let (redis, prefix) = (RedisServer::shared().await, unique_name("plan"));
    let bus = bus(&format!(
        r#"
        [service]
        name = "accounts"
        prefix = "{prefix}:"
        [transports.redis]
        kind = "redis-streams"
        url = "{}"
        [[routes]]
        pattern = "user.*"
        transport = "redis"
        topic = "users"
        [topics.users]
        max_events = 100
        partitions = 3
        groups = ["mails", "audit"]
        "#,
        redis.url()
    ))
    .await;
    let plan = bus.topics().plan().await.unwrap();
    let text = plan.to_string();
    assert!(
        text.contains("max_events 100, groups mails, groups audit"),
        "{text}"
    );
    assert!(text.contains("partitions 3"), "{text}");
    plan.apply().await.unwrap();
    let plan = bus.topics().plan().await.unwrap();
    assert!(
        matches!(plan.steps()[0].action, TopicAction::Keep),
        "{plan}"
    );
    let listed = bus.topics().list("redis").await.unwrap();
    assert!(listed.iter().any(|it| *it == *format!("{prefix}:users")));

    // Whole nodes of 100 entries are trimmed.
    let events = (0..1_000).map(|_| Event::builder("user.created").json(&1).unwrap());
    for outcome in bus.publish_all(events.collect::<Vec<_>>()).await {
        assert!(
            matches!(outcome, polybus::Outcome::Accepted(_)),
            "{outcome:?}"
        );
    }
    let users = bus
        .topics()
        .describe("redis", "users")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(users.groups, ["audit", "mails"]);
    assert_eq!(users.partitions, 3);
    assert!(users.events < 700, "{} events were kept", users.events);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_topics_of_the_example_are_made_on_a_real_kafka() {
    let (kafka, prefix) = (KafkaServer::shared().await, unique_name("standard"));
    let text = include_str!("../../examples/topics.toml");
    let brokers = format!("[\"{}\"]", kafka.brokers());
    let variables = [
        ("POLYBUS__service__prefix", format!("{prefix}.")),
        ("POLYBUS__transports__kafka__brokers", brokers),
    ];
    let config = polybus::Config::parse_with(text, "topics.toml", variables).unwrap();
    let bus = Bus::builder().config(config).build().await.unwrap();
    let plan = bus.topics().plan().await.unwrap();
    plan.apply().await.unwrap();
    let left = bus.topics().plan().await.unwrap();
    assert!(left.is_empty(), "{left}");
    let schemas = bus.topics().describe("kafka", "schema.changed").await;
    let schemas = schemas.unwrap().unwrap();
    assert_eq!((schemas.partitions, schemas.replication), (6, Some(1)));
    assert_eq!(schemas.settings.cleanup, Some(Cleanup::Compact));
    let entities = bus.topics().describe("kafka", "entity.changed").await;
    assert_eq!(entities.unwrap().unwrap().partitions, 12, "by the profile");
}
