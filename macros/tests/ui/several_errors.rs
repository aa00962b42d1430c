use polybus_macros::Event;

#[derive(Event)]
#[event(type = "user.*", version = "1", key = id, topic = "users", crate = "polybus_core")]
struct UserCreated {
    user_id: String,
}

fn main() {}
