use postrider::prelude::*;

#[listener(topic = "order.created", dead_letter = "order.created")]
async fn dead_letter(order: Bytes) {}

#[listener(topic = "order.created", publish = "order.created")]
async fn publish(order: Bytes) -> Option<Again> {
    None
}

#[derive(Message, Serialize)]
#[message(topic = "order.created")]
struct Again;

fn main() {}
