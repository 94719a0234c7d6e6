use postrider::prelude::*;

struct Stock;

#[listener(topic = "order.created")]
async fn reserve(order: Bytes, State(stock): State<Stock>) {}

fn main() {
    let _ = listeners![reserve];
}
