use postrider::prelude::*;

#[listener(topic = "order.created", ordered, broadcast)]
async fn each_its_own(_order: Bytes) {}

#[listener(topic = "order.created", ordered, batch(size = 10, wait = "1s"))]
async fn many(_orders: Vec<Bytes>) {}

fn main() {}
