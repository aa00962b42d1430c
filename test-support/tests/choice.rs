//! What the environment says about the servers is followed.
//!
//! The environment of a process cannot be changed safely while its threads run, so each test runs itself
//! a second time as a child process with another one.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::process::Command;

use polybus_test_support::{Error, KafkaServer, RedisServer};

/// Set in the child process.
const CHILD: &str = "POLYBUS_TEST_CHOICE_CHILD";

/// Variables that the tests of this file set.
const VARIABLES: [&str; 3] = [
    "POLYBUS_TEST_REDIS_URL",
    "POLYBUS_TEST_KAFKA_BROKERS",
    "POLYBUS_TEST_SERVERS",
];

#[tokio::test]
async fn an_external_redis_is_used_and_not_disrupted() {
    if is_child() {
        let server = RedisServer::start().await.unwrap();
        assert_eq!(
            server.url(),
            std::env::var("POLYBUS_TEST_REDIS_URL").unwrap()
        );
        check_external(server.kill().await, "cannot kill the external Redis");
        check_external(server.pause().await, "cannot pause the external Redis");
        check_external(server.resume().await, "cannot resume the external Redis");
        check_external(server.stop().await, "cannot stop the external Redis");
        check_external(server.restart().await, "cannot restart the external Redis");
        return;
    }
    let server = RedisServer::start().await.unwrap();
    let name = "an_external_redis_is_used_and_not_disrupted";
    run_child(name, &[("POLYBUS_TEST_REDIS_URL", server.url())]);
}

#[tokio::test]
async fn an_external_kafka_is_used_and_not_disrupted() {
    if is_child() {
        let server = KafkaServer::start().await.unwrap();
        assert_eq!(
            server.brokers(),
            std::env::var("POLYBUS_TEST_KAFKA_BROKERS").unwrap()
        );
        check_external(server.restart().await, "cannot restart the external Kafka");
        server
            .create_topic("made-through-the-external-server", 2)
            .await
            .unwrap();
        return;
    }
    let server = KafkaServer::start().await.unwrap();
    // One of several brokers is enough.
    let brokers = format!("127.0.0.1:1,{}", server.brokers());
    let name = "an_external_kafka_is_used_and_not_disrupted";
    run_child(name, &[("POLYBUS_TEST_KAFKA_BROKERS", &brokers)]);
    let offsets = server.end_offsets("made-through-the-external-server").await;
    assert_eq!(offsets.unwrap(), [0, 0]);
}

#[tokio::test]
async fn nothing_found_is_an_error_that_says_what_to_install() {
    if is_child() {
        let text = RedisServer::start().await.unwrap_err().to_string();
        check_text(&text, "docker: Docker: docker in PATH was not found");
        check_text(&text, "native: Redis: redis-server in PATH was not found");
        check_text(&text, "apt-get install redis-server");
        let text = KafkaServer::try_shared().await.unwrap_err().to_string();
        check_text(&text, "docker: Docker: docker in PATH was not found");
        check_text(
            &text,
            "native: Kafka: java in JAVA_HOME or PATH was not found",
        );
        check_text(&text, "scripts/install");
        return;
    }
    let name = "nothing_found_is_an_error_that_says_what_to_install";
    run_child(name, &[("PATH", "/nowhere"), ("JAVA_HOME", "/nowhere")]);
}

#[tokio::test]
async fn kafka_without_its_jars_says_where_they_should_be() {
    if is_child() {
        let text = KafkaServer::start().await.unwrap_err().to_string();
        check_text(&text, "/nowhere/kafka-");
        check_text(&text, "scripts/install");
        return;
    }
    let name = "kafka_without_its_jars_says_where_they_should_be";
    run_child(
        name,
        &[
            ("POLYBUS_CACHE", "/nowhere"),
            ("POLYBUS_TEST_SERVERS", "native"),
        ],
    );
}

#[tokio::test]
async fn a_value_that_cannot_be_used_is_refused_without_its_secrets() {
    if is_child() {
        let text = RedisServer::start().await.unwrap_err().to_string();
        check_text(&text, "POLYBUS_TEST_REDIS_URL");
        check_text(&text, "redis://127.0.0.1:6379");
        assert!(!text.contains("secret"), "{text}");
        return;
    }
    let name = "a_value_that_cannot_be_used_is_refused_without_its_secrets";
    run_child(
        name,
        &[("POLYBUS_TEST_REDIS_URL", "http://:secret@127.0.0.1")],
    );
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs the test `name` in a child process with `variables`, and fails with what it wrote when it fails.
fn run_child(name: &str, variables: &[(&str, &str)]) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name]).env(CHILD, "1");
    for variable in VARIABLES {
        child.env_remove(variable);
    }
    let output = child.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    check_text(&text, "1 passed");
}

fn check_external(refused: Result<(), Error>, wanted: &str) {
    let refused = refused.unwrap_err();
    assert!(matches!(refused, Error::External { .. }), "{refused}");
    check_text(&refused.to_string(), wanted);
}

fn check_text(text: &str, wanted: &str) {
    assert!(text.contains(wanted), "{wanted:?} is not in:\n{text}");
}
