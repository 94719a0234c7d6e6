use postrider::prelude::*;

struct Order;

#[listener(topic = "order.created", batch(size = 100, wait = "50ms"))]
async fn reserve(_orders: Vec<Order>) {}

fn main() {
    let _ = listeners![reserve];
}
