use postrider::prelude::*;

struct Stock;

#[listener(topic = "order.created")]
async fn reserve(_order: Bytes, State(_stock): State<Stock>) {}

fn main() {
    let _ = listeners![reserve];
}
