use postrider::prelude::*;

#[listener(topic = "order.created")]
async fn reserve() {}

fn main() {}
