use postrider::prelude::*;

#[listener(topic = "order.created", batch(size = 100, wait = "50ms"))]
async fn reserve(_order: Bytes) {}

fn main() {
    let _ = listeners![reserve];
}
