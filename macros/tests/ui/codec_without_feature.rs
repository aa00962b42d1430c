use polybus_macros::Event;

#[derive(Event)]
#[event(type = "order.placed", avro, crate = "polybus_core")]
struct OrderPlaced;

#[derive(Event)]
#[event(type = "order.paid", protobuf, crate = "polybus_core")]
struct OrderPaid;

#[derive(Event)]
#[event(type = "order.shipped", avro = order, crate = "polybus_core")]
struct OrderShipped;

fn main() {}
