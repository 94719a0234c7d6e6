use postrider::prelude::*;

#[listener(topic = "order.created")]
fn reserve(_order: Bytes) {}

#[listener(topic = "order.created")]
pub fn reserve_later(_order: Bytes) -> impl Future<Output = ()> {
    async {}
}

fn main() {}
