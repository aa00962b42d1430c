use polybus_core::{EventData, IntoEvent};
use serde::Serialize;

#[derive(Serialize)]
struct UserCreated;

fn handle(_: impl EventData) {}
fn publish(_: impl IntoEvent) {}

fn main() {
    handle(UserCreated);
    publish(UserCreated);
}
