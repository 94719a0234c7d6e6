use postrider::prelude::*;

struct Stock;

impl Stock {
    #[listener(topic = "order.created")]
    async fn reserve(_order: Bytes) {}
}

fn main() {}
