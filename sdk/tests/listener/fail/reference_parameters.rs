use postrider::prelude::*;

#[derive(Message, Deserialize)]
#[message(topic = "order.created")]
struct Order;

#[listener(topic = "order.created")]
async fn reserve(_order: &Order, _headers: &mut Headers, _name: Option<&str>, _bytes: &[u8]) {}

fn main() {}
