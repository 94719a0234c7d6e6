use postrider::prelude::*;

#[listener(topic = "order.created", ack = explicit, start = latest, delivery = exactly_once)]
async fn words(order: Bytes) {}

#[listener(topic = "order.created", ack = "manual", retry = off)]
async fn quotes(order: Bytes) {}

fn main() {}
