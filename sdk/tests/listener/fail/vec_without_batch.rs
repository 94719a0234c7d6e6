use postrider::prelude::*;

#[listener(topic = "order.created")]
async fn reserve(_orders: Vec<Bytes>) {}

fn main() {
    let _ = listeners![reserve];
}
