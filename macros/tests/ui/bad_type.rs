use polybus_macros::Event;

#[derive(Event)]
#[event(type = "", crate = "polybus_core")]
struct Empty;

#[derive(Event)]
#[event(type = "user.*", crate = "polybus_core")]
struct Wildcard;

#[derive(Event)]
#[event(type = "user..created", crate = "polybus_core")]
struct EmptySegment;

#[derive(Event)]
#[event(type = "user created", crate = "polybus_core")]
struct Whitespace;

#[derive(Event)]
#[event(type = user.created, crate = "polybus_core")]
struct NoString;

fn main() {}
