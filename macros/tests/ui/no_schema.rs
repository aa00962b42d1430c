use polybus_macros::Event;

#[derive(Event)]
#[event(type = "user.created", schema, garde, crate = "polybus_core")]
struct UserCreated {
    user_id: String,
}

fn main() {}
