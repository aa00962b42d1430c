use polybus_macros::Event;

#[derive(Event)]
#[event(type = "a", key = bytes, subject = maybe, crate = "polybus_core")]
struct Plain {
    bytes: Vec<u8>,
    maybe: Option<Vec<u8>>,
}

#[derive(Event)]
#[event(type = "a", key = 0, crate = "polybus_core")]
struct Generic<T>(T);

fn main() {}
