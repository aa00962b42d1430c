use polybus_macros::Event;

#[derive(Event)]
struct UserCreated {
    user_id: String,
}

#[derive(Event)]
#[event(crate = "polybus_core", key = user_id)]
struct UserDeleted {
    user_id: String,
}

fn main() {}
