use polybus_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", crate = "polybus_core")]
struct Created;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", version = "2.0.0", crate = "polybus_core")]
struct CreatedAgain;

#[derive(Event, Serialize, Deserialize)]
#[event(crate = "polybus_core")]
enum Tagged {
    Created(Created),
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user", crate = "polybus_core")]
#[serde(untagged)]
enum Typed {
    Created(Created),
}

#[derive(Event, Serialize, Deserialize)]
#[event(crate = "polybus_core")]
#[serde(untagged)]
enum Inline {
    Created { user_id: String },
    Deleted,
}

#[derive(Event, Serialize, Deserialize)]
#[event(crate = "polybus_core")]
#[serde(untagged)]
enum Twice {
    Created(Created),
    Again(CreatedAgain),
}

fn main() {}
