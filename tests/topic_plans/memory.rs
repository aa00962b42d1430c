use std::time::Duration;

use polybus::topic::{Limit, TopicAction};
use polybus::{Bus, Config, ErrorKind, TopicPlan};

use super::bus;

const CONFIG: &str = r#"
    [service]
    name = "accounts"
    prefix = "staging."
    [transports.local]
    kind = "memory"
    [[routes]]
    pattern = "user.*"
    transport = "local"
    topic = "user-events"
    [[routes]]
    pattern = "debug.*"
    transport = "local"
    topic = "debug.{2}"
    [[routes]]
    pattern = "deal.closed"
    transport = "local"
    topic = "deals.{2}"
    [topic_defaults]
    retention = "7d"
    [topics.user-events]
    retention = "30d"
    cleanup = "compact"
    [topics.audit]
    groups = ["auditors"]
    [subscriptions.mails]
    retry = { delayed = { pauses = ["1m"] } }
"#;

fn names(plan: &TopicPlan) -> Vec<&str> {
    plan.steps()
        .iter()
        .map(|it| it.wanted.name.as_str())
        .collect()
}

#[tokio::test]
async fn a_plan_has_what_is_declared_and_routed_and_what_goes_with_it() {
    let bus = bus(CONFIG).await;
    let plan = bus.topics().plan().await.unwrap();
    assert_eq!(
        names(&plan),
        [
            "staging.audit",
            "staging.deals.closed",
            "staging.deals.closed.dlq",
            "staging.deals.closed.retry.accounts.1m",
            "staging.user-events",
            "staging.user-events.dlq",
            "staging.user-events.retry.accounts.1m",
        ]
    );
    let made = plan.steps().iter().map(|it| &it.action);
    assert!(
        made.into_iter()
            .all(|it| matches!(it, TopicAction::Create(_)))
    );
    let text = plan.to_string();
    let line = "  + staging.user-events: retention 30d, cleanup compact\n";
    assert!(text.contains(line), "{text}");
    assert!(
        text.contains("  + staging.audit: retention 7d, groups auditors\n"),
        "{text}"
    );
    assert!(
        text.ends_with("7 to make, 0 to change, 0 refused, 0 as wanted"),
        "{text}"
    );
}

#[tokio::test]
async fn what_was_applied_is_as_wanted_and_listed() {
    let bus = bus(CONFIG).await;
    bus.topics().plan().await.unwrap().apply().await.unwrap();
    let plan = bus.topics().plan().await.unwrap();
    assert!(plan.is_empty(), "{plan}");
    assert_eq!(bus.topics().list("local").await.unwrap(), names(&plan));
    let audit = bus
        .topics()
        .describe("local", "audit")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(audit.groups, ["auditors"]);
    let week = Duration::from_secs(7 * 86_400);
    assert_eq!(audit.settings.retention, Some(Limit::At(week)));
}

#[tokio::test]
async fn ensuring_makes_topics_as_they_are_declared_and_leaves_others() {
    let bus = bus(CONFIG).await;
    bus.topics().ensure().await.unwrap();
    let plan = bus.topics().plan().await.unwrap();
    assert!(plan.is_empty(), "{plan}");
}

async fn record(_: polybus::RawEvent) {}

#[tokio::test]
async fn a_subscription_that_runs_needs_what_goes_with_its_own_topics_alone() {
    let bus = bus(CONFIG).await;
    let mails = bus.subscribe("mails").group("post");
    mails.on_pattern("user.*", record).start().await.unwrap();
    let plan = bus.topics().plan().await.unwrap();
    assert_eq!(
        names(&plan),
        [
            "staging.audit",
            "staging.deals.closed",
            "staging.user-events",
            "staging.user-events.dlq",
            "staging.user-events.retry.post.1m",
        ]
    );
}

/// The plan of a config for topics that another config had made.
async fn replanned(before: &str, after: &str) -> TopicPlan {
    let transport = polybus::memory::MemoryTransport::new();
    let connect = async |config: &str| -> Bus {
        let config = Config::parse(config, "polybus.toml").unwrap();
        let same = Same(transport.clone());
        Bus::builder()
            .register(same)
            .config(config)
            .build()
            .await
            .unwrap()
    };
    let bus = connect(before).await;
    bus.topics().plan().await.unwrap().apply().await.unwrap();
    connect(after).await.topics().plan().await.unwrap()
}

/// One broker for several buses.
struct Same(polybus::memory::MemoryTransport);

#[async_trait::async_trait]
impl polybus::transport::TransportFactory for Same {
    fn kind(&self) -> &str {
        "memory"
    }

    async fn connect(
        &self,
        _: polybus::transport::TransportConfig,
    ) -> polybus::Result<polybus::transport::DynTransport> {
        Ok(polybus::transport::DynTransport::new(self.0.clone()))
    }
}

#[tokio::test]
async fn what_would_delete_events_is_refused_until_it_is_allowed() {
    let shorter = CONFIG.replace("retention = \"30d\"", "retention = \"1d\"");
    let plan = replanned(CONFIG, &shorter).await;
    let text = plan.to_string();
    assert!(text.contains("  ! staging.user-events\n"), "{text}");
    assert!(text.contains("refused: retention: 30d -> 1d"), "{text}");
    assert!(
        text.ends_with("0 to make, 0 to change, 1 refused, 6 as wanted"),
        "{text}"
    );

    let error = plan.apply().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let text = error.to_string();
    assert!(text.contains("retention: 30d -> 1d"), "{text}");
    assert!(text.contains("allow_shrinking"), "{text}");

    let allowed = plan.allow_shrinking();
    assert!(
        allowed.to_string().contains("  ~ staging.user-events\n"),
        "{allowed}"
    );
    allowed.apply().await.unwrap();
}

#[tokio::test]
async fn nothing_is_applied_of_a_plan_that_is_refused_in_part() {
    let after = CONFIG
        .replace("retention = \"30d\"", "retention = \"1d\"")
        .replace("[topics.audit]", "[topics.new]");
    let plan = replanned(CONFIG, &after).await;
    assert!(names(&plan).contains(&"staging.new"), "{plan}");
    plan.apply().await.unwrap_err();
    assert!(plan.to_string().contains("  + staging.new"), "{plan}");
}

#[tokio::test]
async fn settings_that_a_transport_does_not_have_are_named() {
    let config = CONFIG.replace("retention = \"7d\"", "partitions = 12");
    let plan = bus(&config).await.topics().plan().await.unwrap();
    let text = plan.to_string();
    assert!(text.contains("without effect here: partitions"), "{text}");
}

#[tokio::test]
async fn a_declared_topic_of_which_it_is_not_known_where_it_is_is_an_error() {
    let config = CONFIG.replace(
        "[transports.local]",
        "[transports.other]\n    kind = \"memory\"\n    [transports.local]",
    );
    let config = Config::parse(&config, "polybus.toml").unwrap();
    let error = Bus::builder().config(config).build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    for part in [
        "polybus.toml:",
        "audit",
        "transport = \"..\"",
        "local, other",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn the_standard_topics_of_the_example_are_planned_and_applied() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/topics.toml");
    let bus = Bus::builder().config_file(file).in_memory().build();
    let bus = bus.await.unwrap();
    let plan = bus.topics().plan().await.unwrap();
    let on_kafka = plan.steps().iter().filter(|it| it.transport == "kafka");
    assert_eq!(on_kafka.count(), 13, "{plan}");
    plan.apply().await.unwrap();
    assert!(bus.topics().plan().await.unwrap().is_empty());
}
