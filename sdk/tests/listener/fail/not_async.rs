use postrider::prelude::*;

#[listener(topic = "order.created")]
fn reserve(order: Bytes) {}

#[listener(topic = "order.created")]
pub fn reserve_later(order: Bytes) -> impl Future<Output = ()> {
    async {}
}

fn main() {}
