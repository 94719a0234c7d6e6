use postrider::prelude::*;

#[listener(topic = "order.created", breaker)]
async fn as_a_flag(_order: Bytes) {}

#[listener(topic = "order.created", breaker(failures = 10))]
async fn without_pause(_order: Bytes) {}

#[listener(topic = "order.created", breaker(failures = 0, pause = "0s"))]
async fn zero(_order: Bytes) {}

#[listener(topic = "order.created", circuit_breaker(failures = 10, pauze = "30s"))]
async fn other_names(_order: Bytes) {}

#[listener(topic = "order.created", breaker(failures = "ten", pauze = "30s"))]
async fn wrong_inside(_order: Bytes) {}

fn main() {}
