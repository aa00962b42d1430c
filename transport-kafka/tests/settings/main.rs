//! Settings, and what they do on a real server.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "../common/mod.rs"]
mod common;
mod membership;
mod partitions;
mod securing;
mod writing;
