use polybus_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", version = "2.0.0", crate = "polybus_core")]
struct Second;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", version = "3.0.0", from = Second, crate = "polybus_core")]
struct WithoutStep;

fn main() {}
