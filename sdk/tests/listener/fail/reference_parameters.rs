use postrider::prelude::*;

#[derive(Message, Deserialize)]
#[message(topic = "order.created")]
struct Order;

#[listener(topic = "order.created")]
async fn reserve(order: &Order, headers: &mut Headers, name: Option<&str>, bytes: &[u8]) {}

fn main() {}
