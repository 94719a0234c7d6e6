use postrider::prelude::*;

#[derive(Message)]
#[message(topic = "order.created")]
struct Order;

#[listener(topic = "order.created")]
async fn reserve(_order: Order) {}

fn main() {
    let _ = listeners![reserve];
}
