use polybus_macros::Event;

#[derive(Event)]
#[event(type = "user.created", crate = "polybus_core", topic = "users")]
struct UserCreated;

fn main() {}
