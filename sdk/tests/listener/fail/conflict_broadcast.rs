use postrider::prelude::*;

#[listener(
    topic = "price.changed",
    broadcast,
    delivery = at_least_once,
    start = earliest,
    dead_letter = "price.failed",
)]
async fn refresh(_price: Bytes) {}

fn main() {}
