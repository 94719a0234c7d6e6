use postrider::prelude::*;

#[listener(topic = "order.created", retry(attempts = 5, backoff = "30s..200ms"))]
async fn reserve(_order: Bytes) {}

fn main() {}
