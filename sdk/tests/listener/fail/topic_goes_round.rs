use postrider::prelude::*;

#[listener(topic = "order.created", dead_letter = "order.created")]
async fn dead_letter(_order: Bytes) {}

#[listener(topic = "order.created", publish = "order.created")]
async fn publish(_order: Bytes) -> Option<Again> {
    None
}

#[derive(Message, Serialize)]
#[message(topic = "order.created")]
struct Again;

fn main() {}
