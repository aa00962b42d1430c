use polybus_macros::Event;

struct User {
    id: String,
}

#[derive(Event)]
#[event(type = "user.created", key = user.uid, crate = "polybus_core")]
struct UserCreated {
    user: User,
}

fn main() {}
