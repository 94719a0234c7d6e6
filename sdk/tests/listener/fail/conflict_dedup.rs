use postrider::prelude::*;

#[listener(topic = "order.created", dedup(window = "24h"), ack = manual)]
async fn manual(_order: Bytes, _ack: Acker) {}

#[listener(topic = "order.created", dedup(window = "24h"), batch(size = 100, wait = "50ms"))]
async fn batch(_orders: Vec<Bytes>) {}

#[listener(topic = "order.created", dedup(window = "24h"), broadcast)]
async fn broadcast(_order: Bytes) {}

fn main() {}
