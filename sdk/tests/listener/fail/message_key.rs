use postrider::prelude::*;

#[derive(Message, Serialize)]
#[message(topic = "order.created", key = id)]
struct Order {
    order_id: u64,
    sku: String,
}

#[derive(Message, Serialize)]
#[message(topic = "order.created", key = 1)]
struct Pair(u64);

#[derive(Message, Serialize)]
#[message(topic = "order.created", key = id)]
struct Unit;

#[derive(Message, Serialize)]
#[message(topic = "order.created", key = id)]
enum Change {
    Created { id: u64 },
}

#[derive(Message, Serialize)]
#[message(topic = "order.created", key = items)]
struct NotDisplay {
    items: Vec<u64>,
}

#[derive(Message, Serialize)]
#[message(topic = "order.created", key = inner.id)]
struct Nested {
    inner: Inner,
}

#[derive(Serialize)]
struct Inner {}

fn main() {}
