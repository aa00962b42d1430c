//! The console prints events, and says that it can't be read.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use polybus::{Bus, Config, ErrorKind, Event, RawEvent};
use serde_json::{Value, json};

/// Set in the process that prints.
const PRINTS_ON: &str = "POLYBUS_TEST_PRINTS_ON";

fn config(section: &str) -> Config {
    let text = format!(
        "[service]\nname = 'tests'\n[transports.screen]\nkind = 'console'\n{section}\n\
         [[routes]]\npattern = '*'\ntransport = 'screen'\ntopic = 'all'"
    );
    Config::parse(&text, "polybus.toml").unwrap()
}

async fn bus(section: &str) -> polybus::Result<Bus> {
    Bus::builder().config(config(section)).build().await
}

/// What the test of this name prints in a process of its own, on one of its streams.
fn printed(stream: &str) -> Vec<Value> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "prints_what_its_parent_asks_for", "--nocapture"])
        .env(PRINTS_ON, stream)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let (here, other) = match stream {
        "stdout" => (output.stdout, output.stderr),
        _ => (output.stderr, output.stdout),
    };
    let lines = |bytes: Vec<u8>| -> Vec<Value> {
        let text = String::from_utf8(bytes).unwrap();
        let lines = text.lines().filter(|line| line.starts_with('{'));
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    assert_eq!(lines(other), Vec::<Value>::new());
    lines(here)
}

#[tokio::test]
async fn prints_what_its_parent_asks_for() {
    let Ok(stream) = std::env::var(PRINTS_ON) else {
        for stream in ["stdout", "stderr"] {
            let [json, text, none] = &printed(stream)[..] else {
                panic!("three lines are printed")
            };
            assert_eq!(json["type"], "user.created");
            assert_eq!(json["source"], "tests");
            assert_eq!(json["specversion"], "1.0");
            assert_eq!(json["data"], json!({ "name": "a\nb" }));
            assert_eq!(json["partitionkey"], "u1");
            assert_eq!(
                (&text["data"], &text["datacontenttype"]),
                (&json!("hi"), &json!("text/plain"))
            );
            assert_eq!(none.get("data"), None);
        }
        return;
    };
    let bus = bus(&format!("stream = '{stream}'")).await.unwrap();
    bus.topics().ensure().await.unwrap();
    let created = bus
        .event("user.created")
        .json(&json!({ "name": "a\nb" }))
        .unwrap();
    created.key("u1").publish().await.unwrap();
    let text = bus.event("debug.text").data("text/plain", "hi");
    let receipt = text.publish().await.unwrap();
    assert_eq!(
        (receipt.transport.as_str(), receipt.topic.name()),
        ("screen", "all")
    );
    bus.event("debug.none").publish().await.unwrap();
    bus.close("10s").await.unwrap().into_result().unwrap();
}

#[tokio::test]
async fn what_is_wrong_in_its_section_is_named() {
    let error = bus("stream = 'printer'").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(
        text.contains("transports.screen.stream") && text.contains("stderr"),
        "{text}"
    );
    let error = bus("path = 'x'").await.unwrap_err().to_string();
    assert!(error.contains("transports.screen.path"), "{error}");
}

#[tokio::test]
async fn it_can_not_be_read_and_says_so() {
    async fn log(_: RawEvent) {}
    let bus = bus("").await.unwrap();
    let error = bus.subscribe("log").on_any(log).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.transport(), Some("screen"));
    assert!(error.to_string().contains("prints events"), "{error}");
    let error = bus.topics().lag("screen", "log", "all").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn in_memory_its_events_can_be_read_as_all_others() {
    let bus = Bus::builder()
        .config(config("stream = 'stderr'"))
        .in_memory();
    let bus = bus.build().await.unwrap();
    async fn log(_: RawEvent) {}
    bus.subscribe("log").on_any(log).start().await.unwrap();
    let event = Event::builder("user.created").source("s").build().unwrap();
    bus.publish(event).await.unwrap();
    let report = bus.close("10s").await.unwrap();
    report.into_result().unwrap();
}
