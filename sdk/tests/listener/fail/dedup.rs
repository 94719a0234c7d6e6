use postrider::prelude::*;

#[listener(topic = "order.created", dedup)]
async fn as_a_flag(_order: Bytes) {}

#[listener(topic = "order.created", dedup = "24h")]
async fn as_a_text(_order: Bytes) {}

#[listener(topic = "order.created", dedup())]
async fn empty(_order: Bytes) {}

#[listener(topic = "order.created", dedup(key = "order_id"))]
async fn without_window(_order: Bytes) {}

#[listener(topic = "order.created", dedup(window = "0s", key = ""))]
async fn zero(_order: Bytes) {}

#[listener(topic = "order.created", dedup(window = "a day", key = order_id))]
async fn no_duration(_order: Bytes) {}

#[listener(topic = "order.created", dedup(window = 24, window = "24h"))]
async fn twice(_order: Bytes) {}

#[listener(topic = "order.created", idempotent(ttl = "24h", by = "order_id"))]
async fn other_names(_order: Bytes) {}

fn main() {}
