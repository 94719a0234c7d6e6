use postrider::prelude::*;

struct Stock;

impl Stock {
    #[listener(topic = "order.created")]
    async fn reserve(&self, _order: Bytes) {}

    #[listener(topic = "order.changed")]
    async fn change(self, _order: Bytes) {}
}

fn main() {}
