use postrider::prelude::*;

#[listener(topic = "order.created", batch(size = 100, wait = "50ms"))]
async fn reserve(orders: Vec<Bytes>) -> usize {
    orders.len()
}

fn main() {
    let _ = listeners![reserve];
}
