//! What stands before the names of topics and the types of events.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use polybus::testing::TestBus;
use polybus::transport::TopicSpec;
use polybus::{Bus, Config, ErrorKind, Event, Headers, Payload, RawEvent, Verdict};
use serde::{Deserialize, Serialize};

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(type = "user.created", key = user_id)]
struct UserCreated {
    user_id: String,
}

fn user() -> UserCreated {
    UserCreated {
        user_id: "u1".to_owned(),
    }
}

async fn bus(service: &str, transport: &str, rest: &str) -> TestBus {
    let text = format!(
        "[service]\nname = 'tests'\n{service}\n[transports.local]\nkind = 'memory'\n{transport}\n\
         [transports.other]\nkind = 'memory'\n{rest}"
    );
    let config = Config::parse(&text, "polybus.toml").unwrap();
    TestBus::on(Bus::builder().config(config)).await.unwrap()
}

const USERS: &str = "[[routes]]\npattern = 'user.*'\ntransport = 'local'\ntopic = 'users'";

async fn accept(_: Payload<UserCreated>) {}

#[tokio::test(start_paused = true)]
async fn the_prefix_stands_before_what_is_published_and_read() {
    for (service, transport) in [
        ("prefix = 'staging.'", ""),
        ("", "prefix = 'staging.'"),
        ("prefix = 'wrong.'", "prefix = 'staging.'"),
    ] {
        let bus = bus(service, transport, USERS).await;
        bus.subscribe("mails").on(accept).start().await.unwrap();
        let receipt = bus.publish(user()).await.unwrap();
        assert_eq!(receipt.topic.name(), "staging.users");
        bus.settle().await;
        let handled = bus.handled("mails");
        assert_eq!(handled.only().topic.name(), "staging.users");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_can_be_without_the_prefix_of_the_service() {
    let bus = bus("prefix = 'staging.'", "prefix = ''", USERS).await;
    let receipt = bus.publish(user()).await.unwrap();
    assert_eq!(receipt.topic.name(), "users");
}

#[tokio::test(start_paused = true)]
async fn dead_letters_have_the_prefix_once() {
    async fn refuse(_: RawEvent) -> Verdict {
        Verdict::DeadLetter {
            reason: "no".into(),
        }
    }
    for (template, topic) in [
        ("{topic}.dlq", "staging.users.dlq"),
        ("failed", "staging.failed"),
        ("dead.{topic}", "staging.dead.users"),
    ] {
        let rest = format!("{USERS}\n[subscriptions.mails]\ndead_letter = '{template}'");
        let bus = bus("", "prefix = 'staging.'", &rest).await;
        bus.subscribe("mails").on_any(refuse).start().await.unwrap();
        bus.publish(user()).await.unwrap();
        bus.settle().await;
        assert_eq!(bus.dead_letters().only().topic.name(), topic);
    }
}

#[tokio::test(start_paused = true)]
async fn topics_are_made_and_asked_for_with_the_prefix_or_without() {
    let bus = bus("", "prefix = 'staging.'", USERS).await;
    bus.topics().ensure().await.unwrap();
    let more = TopicSpec::new("more");
    bus.topics().create("local", &[more]).await.unwrap();
    for name in ["users", "staging.users", "more", "staging.more"] {
        let described = bus.topics().describe("local", name).await.unwrap();
        let described = described.unwrap_or_else(|| panic!("`{name}` is there"));
        assert!(described.name.starts_with("staging."), "{described:?}");
    }
    bus.subscribe("mails").on(accept).start().await.unwrap();
    bus.publish(user()).await.unwrap();
    bus.settle().await;
    let lag = bus.topics().lag("local", "tests", "users").await.unwrap();
    assert!(lag.is_zero());
}

#[tokio::test(start_paused = true)]
async fn a_template_with_the_prefix_is_discovered() {
    let routes = "[[routes]]\npattern = 'user.*'\ntransport = 'local'\ntopic = '{1}.{2}'";
    let bus = bus("", "prefix = 'staging.'", routes).await;
    async fn any(_: RawEvent) {}
    bus.subscribe("all").on_any(any).start().await.unwrap();
    let receipt = bus.publish(user()).await.unwrap();
    assert_eq!(receipt.topic.name(), "staging.user.created");
    bus.settle().await;
    bus.handled("all").assert_len(1);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_has_the_prefix_of_its_own_transport() {
    use polybus::testing::Fault;
    for (fallback, topic) in [("", "live.users"), (", topic = 'spare'", "live.spare")] {
        let routes = format!(
            "prefix = 'live.'\n{USERS}\nfallback = {{ transport = 'other'{fallback} }}\n\
             retry = {{ max_attempts = 1 }}"
        );
        let bus = bus("", "prefix = 'staging.'", &routes).await;
        bus.inject(Fault::reject("user.created").nth(1));
        let receipt = bus.publish(user()).await.unwrap();
        assert_eq!(receipt.topic.name(), topic);
        assert_eq!(receipt.transport, "other");
        assert_eq!(bus.published_raw("*").only().topic.name(), topic);
    }
}

#[test]
fn a_config_in_memory_keeps_the_prefix() {
    let text = "[service]\nname = 'tests'\n[transports.far]\nkind = 'kafka'\n\
                brokers = ['${NOT_SET}']\nprefix = 'staging.'";
    let config = Config::parse_in_memory(text, "polybus.toml").unwrap();
    assert_eq!(config.topic_prefix("far").as_str(), "staging.");
}

const EVERYTHING: &str = "[[routes]]\npattern = '*'\ntransport = 'local'\ntopic = 'all'";

#[tokio::test(start_paused = true)]
async fn the_origin_stands_before_types_that_are_published_and_taken() {
    let bus = bus("origin = 'eu.de'", "", EVERYTHING).await;
    async fn note(_: Payload<UserCreated>, RawEvent(event): RawEvent, _: Headers) {
        assert_eq!(event.event_type(), "eu.de.user.created");
    }
    bus.subscribe("mails").on(note).start().await.unwrap();
    bus.publish(user()).await.unwrap();
    bus.event("user.created")
        .json(&user())
        .unwrap()
        .publish()
        .await
        .unwrap();
    for outcome in bus.publish_all([user(), user()]).await {
        assert!(outcome.is_accepted());
    }
    bus.settle().await;
    bus.handled("mails").assert_len(4);
    bus.published::<UserCreated>().assert_len(4);
    bus.published_raw("eu.de.user.created").assert_len(4);
    bus.dead_letters().assert_empty();
}

#[tokio::test(start_paused = true)]
async fn events_of_other_origins_are_taken_by_patterns_of_the_whole_type() {
    let bus = bus("origin = 'eu.de'", "", EVERYTHING).await;
    async fn any(_: RawEvent) {}
    bus.subscribe("mails").on(accept).start().await.unwrap();
    let every = bus
        .subscribe("every")
        .group("every")
        .on_pattern("*.user.created", any);
    every.start().await.unwrap();
    // A whole event is published as it is: it has the origin of whoever made it.
    let event = Event::builder("us.user.created").source("far");
    let event = event.json(&user()).unwrap().build().unwrap();
    bus.publish(event).await.unwrap();
    bus.publish(user()).await.unwrap();
    bus.settle().await;
    bus.handled("mails").assert_len(1);
    bus.handled("every").assert_len(2);
}

#[tokio::test(start_paused = true)]
async fn routes_are_of_the_whole_type() {
    let routes = "[[routes]]\npattern = 'eu.*'\ntransport = 'local'\ntopic = '{1}-{2}-users'";
    let bus = bus("origin = 'eu.de'", "", routes).await;
    let receipt = bus.publish(user()).await.unwrap();
    assert_eq!(receipt.topic.name(), "eu-de-users");
    let elsewhere = bus_with_users_of("us").await;
    let error = elsewhere.publish(user()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoRoute);
    assert!(error.to_string().contains("`us.user.created`"), "{error}");
}

async fn bus_with_users_of(origin: &str) -> TestBus {
    bus(&format!("origin = '{origin}'"), "", USERS).await
}

#[test]
fn an_origin_that_is_no_beginning_of_a_type_is_refused() {
    for origin in ["", "eu.", "eu.*", "+", "e u."] {
        let text = format!("[service]\nname = 'tests'\norigin = '{origin}'");
        let error = Config::parse(&text, "polybus.toml").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{origin}");
        assert!(error.to_string().contains("service.origin"), "{error}");
    }
}

#[tokio::test]
async fn a_bus_without_them_is_as_ever() {
    let text = format!("[service]\nname = 'tests'\n[transports.local]\nkind = 'memory'\n{USERS}");
    let config = Config::parse(&text, "polybus.toml").unwrap();
    let bus = Bus::builder().config(config).build().await.unwrap();
    let receipt = bus.publish(user()).await.unwrap();
    assert_eq!(receipt.topic.name(), "users");
}
