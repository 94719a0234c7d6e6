use postrider::prelude::*;

#[listener(
    topic = "order.created",
    concurrency = -1,
    prefetch = 5000000000,
    retry(attempts = 2.5, backoff = "soon"),
    timeout = "10",
    rate = "500/day",
    max_size = "64 kilobytes",
    enabled = "yes",
)]
async fn one_by_one(_order: Bytes) {}

#[listener(topic = "order.created", batch(size = "100", wait = 50))]
async fn many(_orders: Vec<Bytes>) {}

#[listener(topic = "order.created", concurrency = usize::MAX, rate = "fast", max_size = true)]
async fn no_literal(_order: Bytes) {}

#[listener(topic = "order.created", group = inventory, broker = 5, dead_letter = failed, rate = 500)]
async fn no_quotes(_order: Bytes) {}

fn main() {}
