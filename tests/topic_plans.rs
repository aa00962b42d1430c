//! Topics as the config declares them: planned and applied, in memory and on real servers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "topic_plans/memory.rs"]
mod memory;
#[path = "topic_plans/servers.rs"]
mod servers;

use polybus::{Bus, Config};

async fn bus(config: &str) -> Bus {
    let config = Config::parse(config, "polybus.toml").unwrap();
    Bus::builder().config(config).build().await.unwrap()
}
