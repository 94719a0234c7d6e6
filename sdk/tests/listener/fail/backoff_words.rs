use postrider::prelude::*;

#[listener(topic = "order.created", retry(backoff = "linear 5s"))]
async fn grows_to_nothing(_order: Bytes) {}

#[listener(topic = "order.created", retry(backoff = "fixed 1s..5s"))]
async fn fixed_to_a_range(_order: Bytes) {}

#[listener(topic = "order.created", retry(backoff = "cubic 1s..5s"))]
async fn unknown_word(_order: Bytes) {}

#[listener(topic = "order.created", retry(attempts = 1, max_age = "1h"))]
async fn nothing_to_age(_order: Bytes) {}

#[listener(topic = "order.created", retry(max_age = 3600, age = "1h"))]
async fn no_quotes(_order: Bytes) {}

fn main() {}
