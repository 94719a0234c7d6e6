#![deny(dead_code)]

use postrider::prelude::*;

#[listener(topic = "order.created")]
async fn forgotten(_order: Bytes) {}

#[listener(topic = "order.created")]
async fn listed(_order: Bytes) {}

fn main() {
    let _ = listeners![listed];
}
