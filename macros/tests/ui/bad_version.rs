use polybus_macros::Event;

#[derive(Event)]
#[event(type = "user.created", version = "1.0", crate = "polybus_core")]
struct TwoNumbers;

#[derive(Event)]
#[event(type = "user.created", version = "1.0.0-beta", crate = "polybus_core")]
struct PreRelease;

#[derive(Event)]
#[event(type = "user.created", version = 1, crate = "polybus_core")]
struct NoString;

fn main() {}
