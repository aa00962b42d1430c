use polybus_macros::Event;

#[derive(Event)]
#[event = "user.created"]
struct NoParentheses;

#[derive(Event)]
#[event(type, crate = "polybus_core")]
struct NoValue;

#[derive(Event)]
#[event(type = "user.created", type = "user.made", crate = "polybus_core")]
struct Twice;

#[derive(Event)]
#[event(type = "user.created", key = format!("{user_id}"), crate = "polybus_core")]
struct Expression {
    user_id: String,
}

#[derive(Event)]
#[event(type = "user.created", crate = "not-a-path")]
struct NoPath;

#[derive(Event)]
#[event(type = "user.created", crate = "polybus_core")]
struct OnTheField {
    #[event(key)]
    user_id: String,
}

fn main() {}
