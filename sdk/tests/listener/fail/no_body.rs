use postrider::prelude::*;

trait Orders {
    #[listener(topic = "order.created")]
    async fn created(order: Bytes);
}

fn main() {}
