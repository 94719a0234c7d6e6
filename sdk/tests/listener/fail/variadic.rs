use postrider::prelude::*;

#[listener(topic = "order.created")]
unsafe extern "C" fn many(order: Bytes, mut rest: ...) {}

fn main() {}
