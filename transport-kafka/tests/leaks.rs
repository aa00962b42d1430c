//! What is closed or dropped leaves nothing behind. A test binary of its own: it counts the
//! threads of the process.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::time::Duration;

use common::*;
use polybus_core::transport::{Admin, Publisher, Subscriber, Transport};
use polybus_test_support::{KafkaServer, unique_name};
use tokio::time::sleep;

/// The threads of this transport and of its client.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| {
        let name = std::fs::read_to_string(task.ok()?.path().join("comm")).ok()?;
        Some(name.trim().to_owned())
    });
    names
        .filter(|name| name.starts_with("rdk:") || name.starts_with("polybus-kafka"))
        .collect()
}

async fn until_no_threads() {
    let end = deadline();
    while !threads().is_empty() {
        assert!(tokio::time::Instant::now() < end, "{:?}", threads());
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_thread_is_left() {
    let server = KafkaServer::shared().await;
    for orderly in [true, false] {
        let kafka = connect(server).await;
        let topic = topic(&kafka, 3).await;
        let group = unique_name("group");
        let publisher = kafka.publisher().await.unwrap();
        publish_all(&publisher, &numbered(&topic, 0..100, 10)).await;
        let mut member = join(&kafka, &group, &topic).await;
        recv(&mut member, 10).await;
        let settler = member.settler();
        kafka.admin().lag(&group, &[topic]).await.unwrap();
        assert!(!threads().is_empty());
        match orderly {
            true => {
                member.close(deadline()).await.unwrap();
                publisher.close(deadline()).await.unwrap();
            }
            false => drop(member),
        }
        drop((publisher, kafka));
        until_no_threads().await;
        drop(settler);
    }
}
