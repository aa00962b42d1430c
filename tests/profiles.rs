//! Profiles of a config, and configs of the environment alone, over real servers that demand
//! encryption and a login.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use polybus::transport::TopicSpec;
use polybus::{Bus, Config, ErrorKind, Outcome};
use polybus_test_support::{Certificates, KafkaOptions, RedisOptions, unique_name};

const PASSWORD: &str = "p@ss:w/ord?";

/// `debug.*` is printed in development, and nowhere else.
const STAGES: &str = r#"
[service]
name = "accounts"
[transports.main]
kind = "memory"
[[routes]]
pattern = "user.*"
transport = "main"
topic = "users"
[profiles.development.transports.screen]
kind = "console"
stream = "stderr"
[[profiles.development.routes]]
pattern = "debug.*"
transport = "screen"
topic = "debug"
"#;

fn file(directory: &Path, text: &str) -> std::path::PathBuf {
    let file = directory.join("polybus.toml");
    std::fs::write(&file, text).unwrap();
    file
}

async fn publish(bus: &Bus, event_type: &str) -> polybus::Result<polybus::Receipt> {
    bus.event(event_type.to_owned()).json(&1)?.publish().await
}

#[tokio::test]
async fn a_route_to_the_console_is_there_in_development_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path(), STAGES);
    let build = |profile: &str| Bus::builder().config_file(&file).profile(profile).build();
    let bus = build("development").await.unwrap();
    publish(&bus, "debug.query").await.unwrap();
    publish(&bus, "user.created").await.unwrap();
    let bus = build("production").await.unwrap();
    let error = publish(&bus, "debug.query").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoRoute);
    assert!(bus.transport("screen").is_none());
}

#[tokio::test]
async fn a_profile_holds_in_memory_too() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path(), STAGES);
    let bus = Bus::builder()
        .config_file(&file)
        .profile("development")
        .in_memory();
    let bus = bus.build().await.unwrap();
    publish(&bus, "debug.query").await.unwrap();
}

#[tokio::test]
async fn a_config_that_was_read_takes_no_profile() {
    let config = Config::parse(STAGES, "polybus.toml").unwrap();
    let bus = Bus::builder().config(config).profile("production").build();
    assert_eq!(bus.await.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_alone_reaches_a_kafka_that_demands_a_login_over_tls() {
    let certificates = Certificates::generate().unwrap();
    let options = KafkaOptions::new().secure(&certificates);
    let server = options.user("app", PASSWORD).start().await.unwrap();
    let authority = certificates.authority().display().to_string();
    let topic = unique_name("deals");
    // Production brings TLS and SCRAM-SHA-512; the environment says the rest.
    let variables = [
        ("POLYBUS__profile", "production"),
        ("KAFKA_BROKERS", server.sasl_brokers().unwrap()),
        ("KAFKA_CLIENT_ID", "deals"),
        ("KAFKA_SASL_USERNAME", "app"),
        ("KAFKA_SASL_PASSWORD", PASSWORD),
        ("POLYBUS__transports__kafka__ca_file", &authority),
        ("POLYBUS__topic_defaults__replication", "1"),
    ];
    works(&variables, "kafka", &topic).await;
    let spelled = [
        ("KAFKA_BROKERS", server.sasl_brokers().unwrap()),
        ("KAFKA_CLIENT_ID", "deals"),
        ("KAFKA_SSL_ENABLED", "true"),
        ("KAFKA_SASL_MECHANISM", "plain"),
        ("KAFKA_SASL_USERNAME", "app"),
        ("KAFKA_SASL_PASSWORD", PASSWORD),
        ("POLYBUS__transports__kafka__ca_file", &authority),
    ];
    works(&spelled, "kafka", &topic).await;

    let mut wrong = spelled;
    wrong[5].1 = "wrong-secret";
    let error = build(&wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(!format!("{error:?}").contains("wrong-secret"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_alone_reaches_a_redis_that_demands_a_login_over_tls() {
    let certificates = Certificates::generate().unwrap();
    let user = format!("user app on >{PASSWORD} ~bus:* &* +@all");
    let options = RedisOptions::new().guarded().tls(&certificates).line(user);
    let server = options.start().await.unwrap();
    let authority = certificates.authority().display().to_string();
    let certificate = certificates.client().display().to_string();
    let key = certificates.client_key().display().to_string();
    let variables = [
        ("REDIS_URL", server.tls_url().unwrap()),
        ("REDIS_PASSWORD", PASSWORD),
        ("POLYBUS__transports__redis__user", "app"),
        ("POLYBUS__transports__redis__ca_file", &authority),
        ("POLYBUS__transports__redis__certificate_file", &certificate),
        ("POLYBUS__transports__redis__key_file", &key),
        ("POLYBUS__service__name", "accounts"),
    ];
    works(&variables, "redis", "bus:users").await;

    let mut wrong = variables;
    wrong[1].1 = "wrong-secret";
    let error = build(&wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(!format!("{error:?}").contains("wrong-secret"), "{error:?}");
}

async fn build(variables: &[(&str, &str)]) -> polybus::Result<Bus> {
    let config = Config::from_variables(variables.iter().copied())?;
    Bus::builder().config(config).build().await
}

/// Makes a topic and publishes to it: events travel in a topic of their type's name.
async fn works(variables: &[(&str, &str)], transport: &str, topic: &str) {
    let bus = build(variables).await.unwrap();
    let spec = [TopicSpec::new(topic).partitions(1)];
    bus.topics().create(transport, &spec).await.unwrap();
    let event = polybus::Event::builder(topic.to_owned()).json(&1).unwrap();
    let outcomes = bus.publish_all([event]).await;
    assert!(
        matches!(outcomes[..], [Outcome::Accepted(_)]),
        "{outcomes:?}"
    );
    let listed = bus.topics().list(transport).await.unwrap();
    assert!(listed.iter().any(|it| it == topic), "{listed:?}");
    bus.close("10s").await.unwrap().into_result().unwrap();
}
