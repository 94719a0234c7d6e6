use postrider::prelude::*;

struct Stock;

impl Stock {
    #[listener(topic = "order.created")]
    async fn reserve(&self, order: Bytes) {}

    #[listener(topic = "order.changed")]
    async fn change(self, order: Bytes) {}
}

fn main() {}
