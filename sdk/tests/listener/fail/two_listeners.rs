use postrider::prelude::*;

#[listener(topic = "order.created")]
#[listener(topic = "order.changed")]
async fn reserve(_order: Bytes) {}

fn main() {
    let _ = listeners![reserve];
}
