use postrider::prelude::*;

trait Orders {
    #[listener(topic = "order.created")]
    async fn created(_order: Bytes);
}

fn main() {}
