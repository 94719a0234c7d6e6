use postrider::prelude::*;

#[listener(topic = "order.created")]
async unsafe fn dangerous(order: Bytes) {}

#[listener(topic = "order.created")]
async extern "C" fn foreign(order: Bytes) {}

fn main() {}
