use postrider::prelude::*;

#[listener(topic = "order.created")]
async unsafe fn dangerous(_order: Bytes) {}

#[listener(topic = "order.created")]
async extern "C" fn foreign(_order: Bytes) {}

#[listener(topic = "order.created")]
const fn constant(_order: Bytes) {}

fn main() {}
