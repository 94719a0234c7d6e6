use postrider::prelude::*;

#[listener(topic = "order.created")]
async fn reserve(_order) {}

fn main() {}
