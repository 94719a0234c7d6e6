use postrider::prelude::*;

#[listener(topic = "order.created")]
unsafe extern "C" fn many(_order: Bytes, _: ...) {}

fn main() {}
