use postrider::prelude::*;

#[listener(topic = "order.created")]
struct Order;

#[listener(topic = "order.created")]
mod orders {}

#[listener(topic = "order.created")]
const HANDLER: fn(Bytes) = drop;

fn main() {
    let _ = Order;
}
