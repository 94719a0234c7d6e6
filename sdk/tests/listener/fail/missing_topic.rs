use postrider::prelude::*;

#[listener]
async fn nothing_at_all(_order: Bytes) {}

#[listener(group = "inventory")]
async fn only_a_group(_order: Bytes) {}

fn main() {}
