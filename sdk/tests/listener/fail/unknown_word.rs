use postrider::prelude::*;

#[listener(topic = "order.created", ack = explicit, start = latest, delivery = exactly_once)]
async fn words(_order: Bytes) {}

#[listener(topic = "order.created", ack = "manual", retry = off)]
async fn quotes(_order: Bytes) {}

fn main() {}
