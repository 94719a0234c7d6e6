use postrider::prelude::*;

#[listener(
    topic = "order.created",
    concurrency = 0,
    prefetch = 0,
    retry(attempts = 0, backoff = "0ms..1s"),
    timeout = "0s",
    rate = "0/s",
    max_size = 0,
)]
async fn one_by_one(_order: Bytes) {}

#[listener(topic = "order.created", batch(size = 0, wait = "0ms"))]
async fn many(_orders: Vec<Bytes>) {}

#[listener(topic = "order.created", max_size = "0KiB", retry(backoff = "0s"))]
async fn in_words(_order: Bytes) {}

fn main() {}
