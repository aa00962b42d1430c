use polybus_macros::Event;

#[derive(Event)]
#[event(type = "user", crate = "polybus_core")]
union User {
    number: u32,
    bits: f32,
}

fn main() {}
