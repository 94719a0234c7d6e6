use postrider::prelude::*;

struct Order;

#[listener(topic = "order.created")]
async fn reserve(_order: Order) {}

fn main() {
    let _ = listeners![reserve];
}
