use postrider::prelude::*;

#[listener(topic = "order.created", ordered, broadcast)]
async fn each_its_own(order: Bytes) {}

#[listener(topic = "order.created", ordered, batch(size = 10, wait = "1s"))]
async fn many(orders: Vec<Bytes>) {}

fn main() {}
