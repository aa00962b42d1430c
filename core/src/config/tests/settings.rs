//! What a config that is right comes to.

use std::time::Duration;

use serde::Deserialize;

use super::super::*;
use super::{BRIEF, parse};
use crate::topic::TopicPrefix;
use crate::transport::Start;
use crate::{Pattern, Topic};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Redis {
    url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kafka {
    brokers: Vec<String>,
}

#[test]
fn the_config_of_the_brief_is_read_in_full() {
    let config = parse(BRIEF, &[]).unwrap();
    assert_eq!(config.service, ServiceConfig::new("deal-monitor"));
    assert_eq!(config.transports.len(), 2);

    let redis = &config.transports["redis"];
    assert_eq!(redis.kind, "redis-streams");
    assert_eq!(redis.origin.to_string(), "polybus.toml:4");
    let settings: Redis = redis.section.parse().unwrap();
    assert_eq!(settings.url, "redis://127.0.0.1:6379");
    let settings: Kafka = config.transports["kafka"].section.parse().unwrap();
    assert_eq!(settings.brokers, ["127.0.0.1:9092"]);

    let routes: Vec<_> = config
        .routes
        .iter()
        .map(|route| {
            (
                route.pattern.as_str(),
                route.transport.as_str(),
                route.topic.as_str(),
                route.origin().to_string(),
            )
        })
        .collect();
    assert_eq!(
        routes,
        [
            ("user.*", "redis", "user-events", "polybus.toml:13".into()),
            (
                "deal.*",
                "kafka",
                "filops.deals.status",
                "polybus.toml:18".into()
            ),
        ]
    );
    assert!(config.routing.default.is_none());

    let watch = config.subscription("deal-watch");
    assert_eq!(watch.group.as_deref(), Some("deal-watch"));
    assert_eq!(
        SubscriptionConfig {
            group: None,
            ..watch
        },
        SubscriptionConfig::default()
    );
}

#[test]
fn defaults_are_what_the_documentation_says() {
    let config = parse("service.name = 's'", &[]).unwrap();
    assert_eq!(config.service.shutdown_deadline, Duration::from_secs(30));
    assert_eq!(config.service.max_event_size, 1_048_576);

    let subscription = config.subscription("any");
    assert_eq!(subscription.group, None);
    assert_eq!(subscription.concurrency, 64);
    assert_eq!(subscription.ordering, Ordering::Key);
    assert_eq!(subscription.start, Start::Beginning);
    assert_eq!(subscription.retry.max_attempts, 5);
    assert_eq!(subscription.retry.base, Duration::from_millis(200));
    assert_eq!(subscription.retry.max, Duration::from_secs(30));
    assert_eq!(subscription.retry.delayed, None);
    let none = TopicPrefix::default();
    let dead_letters = subscription.dead_letter.topic(&Topic::new("users"), &none);
    assert_eq!(dead_letters, Some(Topic::new("users.dlq")));
    assert_eq!(subscription.unhandled, Unhandled::Ack);
    assert_eq!(subscription.max_in_flight, 1024);
    assert_eq!(subscription.takeover_after, Duration::from_secs(60));
    assert_eq!(subscription.handler_timeout, None);
    assert_eq!(subscription.max_in_flight_bytes, 64 << 20);
    let age = subscription.max_in_flight_age;
    assert_eq!(age, Some(Duration::from_secs(600)));
}

#[test]
fn every_setting_can_be_set() {
    let config = parse(
        r#"
        [service]
        name = "s"
        shutdown_deadline = "1m"
        max_event_size = "64KiB"

        [routing]
        default = { transport = "m", topic = "rest.{1}" }

        [transports.m]
        kind = "memory"

        [subscriptions.a]
        group = "g"
        concurrency = 1
        ordering = "none"
        start = "now"
        retry = { max_attempts = 9, base = "0s", max = "1h", delayed = { pauses = ["2h", "1d"], after_attempts = 2, topic = "{pause}.{group}.{topic}" } }
        dead_letter = false
        unhandled = "dead_letter"
        max_in_flight = 1
        takeover_after = "5m"
        handler_timeout = "20s"
        "#,
        &[],
    )
    .unwrap();
    assert_eq!(config.service.shutdown_deadline, Duration::from_secs(60));
    assert_eq!(config.service.max_event_size, 65_536);
    let default = config.routing.default.as_ref().unwrap();
    assert_eq!(
        (default.transport.as_str(), default.topic.as_str()),
        ("m", "rest.{1}")
    );

    let subscription = config.subscription("a");
    assert_eq!(subscription.group.as_deref(), Some("g"));
    assert_eq!(subscription.concurrency, 1);
    assert_eq!(subscription.ordering, Ordering::None);
    assert_eq!(subscription.start, Start::Now);
    assert_eq!(subscription.retry.max_attempts, 9);
    let delayed = subscription.retry.delayed.as_ref().unwrap();
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    assert_eq!(delayed.pauses, [hours(2), hours(24)]);
    assert_eq!(delayed.after_attempts, 2);
    let none = TopicPrefix::default();
    let topic = delayed.topic.fill(&Topic::new("t"), &none, "g", hours(24));
    assert_eq!(topic, Topic::new("24h.g.t"));
    assert_eq!(subscription.retry.base, Duration::ZERO);
    assert_eq!(subscription.retry.max, Duration::from_secs(3600));
    assert_eq!(subscription.dead_letter, DeadLetter::Off);
    assert_eq!(
        subscription
            .dead_letter
            .topic(&Topic::new("t"), &TopicPrefix::default()),
        None
    );
    assert_eq!(subscription.unhandled, Unhandled::DeadLetter);
    assert_eq!(subscription.max_in_flight, 1);
    assert_eq!(subscription.takeover_after, Duration::from_secs(300));
    assert_eq!(subscription.handler_timeout, Some(Duration::from_secs(20)));
}

#[test]
fn a_value_may_be_spelled_in_several_ways() {
    let subscription = |line: &str| {
        let text = format!("service.name = 's'\n[subscriptions.a]\n{line}");
        parse(&text, &[]).unwrap().subscription("a")
    };
    for line in [
        "start = '2026-01-31T00:00:00Z'",
        "start = 2026-01-31T00:00:00Z",
        "start = 2026-01-31T01:00:00+01:00",
    ] {
        let time = "2026-01-31T00:00:00Z".parse().unwrap();
        assert_eq!(subscription(line).start, Start::Time(time), "{line}");
    }
    let dead_letters = subscription("dead_letter = 'dlq.{topic}'").dead_letter;
    assert_eq!(
        dead_letters.topic(&Topic::new("t"), &TopicPrefix::default()),
        Some(Topic::new("dlq.t"))
    );
    for size in ["2048", "'2048'", "'2KiB'", "'2 KiB'", "'2.048kB'"] {
        let text = format!("service = {{ name = 's', max_event_size = {size} }}");
        let config = parse(&text, &[]).unwrap();
        assert_eq!(config.service.max_event_size, 2048, "{size}");
    }
}

#[test]
fn a_config_can_be_made_in_code() {
    let mut config = Config::new("s");
    let memory = TransportSection::new("memory", Section::default());
    config.transports.insert("m".into(), memory);
    let pattern = Pattern::parse("*").unwrap();
    config.routes.push(RouteConfig::new(pattern, "m", "all"));
    config.routing.default = Some(DefaultRoute::new("m", "rest"));
    assert_eq!(config.routes[0].origin(), &Origin::Code);
    assert_eq!(config.subscription("a"), SubscriptionConfig::default());
}

#[test]
fn in_a_test_every_transport_is_in_memory_and_needs_no_variable() {
    let text = BRIEF.replace("${REDIS_URL:-", "${POLYBUS_NOWHERE_SET}");
    parse(&text, &[]).unwrap_err();
    let config = Config::parse_in_memory(&text, "polybus.toml").unwrap();
    let names: Vec<_> = config.transports.keys().collect();
    assert_eq!(names, ["kafka", "redis"]);
    for transport in config.transports.values() {
        assert_eq!(transport.kind, "memory");
        assert!(transport.section.is_empty());
    }
    assert_eq!(
        config.transports["redis"].origin.to_string(),
        "polybus.toml:4"
    );
    assert_eq!(config.routes.len(), 2);
}

#[test]
fn a_file_is_read_and_named_in_errors() {
    let folder = std::env::temp_dir().join(format!("polybus-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("bus.toml");
    std::fs::write(&path, "[service]\nname = 's'\n").unwrap();
    assert_eq!(Config::from_file(&path).unwrap().service.name, "s");
    let config = Config::from_file_in_memory(&path, None).unwrap();
    assert_eq!(config.service.name, "s");

    std::fs::write(&path, "[service]\nname = 7\n").unwrap();
    let error = Config::from_file(&path).unwrap_err().to_string();
    let start = format!("{}:2: service.name: ", path.display());
    assert!(error.starts_with(&start), "{error}");

    std::fs::remove_dir_all(&folder).unwrap();
    let error = Config::from_file(&path).unwrap_err().to_string();
    let start = format!("{}: the config file can't be read: ", path.display());
    assert!(error.starts_with(&start), "{error}");
}

#[test]
fn idempotency_has_a_store_and_defaults() {
    let text = "[service]\nname = 's'\n[subscriptions.a]\nidempotency = { store = 'redis', lease = '10s', \
                retain = '1d' }\n[subscriptions.b]\nidempotency = { store = 'memory' }";
    let config = parse(text, &[]).unwrap();
    let idempotency = |name| config.subscription(name).idempotency.unwrap();
    let (a, b) = (idempotency("a"), idempotency("b"));
    assert_eq!(a.store, "redis");
    assert_eq!(a.origin().to_string(), "polybus.toml:4");
    assert_eq!((a.lease.as_secs(), a.retain.as_secs()), (10, 86_400));
    assert_eq!((b.lease.as_secs(), b.retain.as_secs()), (30, 7 * 86_400));
    assert_eq!(config.subscription("c").idempotency, None);
}

#[test]
fn the_window_of_a_subscription_has_events_bytes_and_age() {
    let of = |settings: &str| {
        let text = format!("[service]\nname = 's'\n[subscriptions.a]\n{settings}");
        parse(&text, &[]).unwrap().subscription("a")
    };
    let a = of("max_in_flight_bytes = '1MiB'\nmax_in_flight_age = '1h'\nordering = 'partition'");
    assert_eq!(a.max_in_flight_bytes, 1 << 20);
    assert_eq!(a.max_in_flight_age, Some(Duration::from_secs(3_600)));
    assert_eq!(a.ordering, Ordering::Partition);
    for never in ["false", "'false'"] {
        let a = of(&format!("max_in_flight_age = {never}"));
        assert_eq!(a.max_in_flight_age, None);
    }
}
