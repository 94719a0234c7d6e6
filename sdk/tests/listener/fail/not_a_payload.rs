use postrider::prelude::*;

struct Order;

#[listener(topic = "order.created")]
async fn reserve(order: Order) {}

fn main() {
    let _ = listeners![reserve];
}
