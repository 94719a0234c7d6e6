use postrider::prelude::*;

#[listener(topic = "order.created", retry(attempts = 5, backoff = "30s..200ms"))]
async fn reserve(order: Bytes) {}

fn main() {}
