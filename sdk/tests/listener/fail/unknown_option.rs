use postrider::prelude::*;

#[listener(topik = "order.created")]
async fn mistyped(_order: Bytes) {}

#[listener(topic = "order.created", workers = 8)]
async fn word_of_another_library(_order: Bytes) {}

#[listener(topic = "order.created", colour = "red")]
async fn nothing_like_it(_order: Bytes) {}

#[listener(topic = "order.created", retry(attempts = 5, delay = "1s"))]
async fn inside_retry(_order: Bytes) {}

#[listener(topic = "order.created", retries = 5)]
async fn what_stands_inside_of_another(_order: Bytes) {}

fn main() {}
