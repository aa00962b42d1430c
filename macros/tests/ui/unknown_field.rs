use polybus_macros::Event;

#[derive(Event)]
#[event(type = "user.created", key = id, subject = "user.id", crate = "polybus_core")]
struct UserCreated {
    user_id: String,
    email: String,
}

#[derive(Event)]
#[event(type = "user.deleted", key = 1, crate = "polybus_core")]
struct UserDeleted(String);

#[derive(Event)]
#[event(type = "ping", key = id, crate = "polybus_core")]
struct Ping;

fn main() {}
