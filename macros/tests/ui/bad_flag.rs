use polybus_macros::Event;
use serde::{Deserialize, Serialize};

#[derive(Event)]
#[event(type = "user.deleted", schema = true, garde("email"), crate = "polybus_core")]
struct UserDeleted;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.renamed", crate = "polybus_core")]
struct UserRenamed;

#[derive(Event, Serialize, Deserialize)]
#[event(schema, crate = "polybus_core")]
#[serde(untagged)]
enum UserEvent {
    Renamed(UserRenamed),
}

fn main() {}
