use postrider::prelude::*;

#[listener]
async fn nothing_at_all(order: Bytes) {}

#[listener(group = "inventory")]
async fn only_a_group(order: Bytes) {}

fn main() {}
