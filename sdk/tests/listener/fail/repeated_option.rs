use postrider::prelude::*;

#[listener(topic = "order.created", group = "a", topic = "order.changed", group = "b")]
async fn twice(_order: Bytes) {}

#[listener(topic = "order.created", retry(attempts = 5, attempts = 6))]
async fn inside_retry(_order: Bytes) {}

fn main() {}
