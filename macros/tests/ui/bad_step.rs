use polybus_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", version = "2.0.0", crate = "polybus_core")]
struct Second;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", version = "1.0.0", from = Second, crate = "polybus_core")]
struct Backwards;

impl From<Second> for Backwards {
    fn from(_: Second) -> Self {
        Self
    }
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.renamed", version = "3.0.0", from = Second, crate = "polybus_core")]
struct Elsewhere;

impl From<Second> for Elsewhere {
    fn from(_: Second) -> Self {
        Self
    }
}

fn main() {}
