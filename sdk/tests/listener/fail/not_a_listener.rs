use postrider::prelude::*;

async fn reserve(order: Bytes) {}

struct Stock {}

fn main() {
    let _ = listeners![reserve];
    let _ = listeners![Stock];
    let _ = listeners![nowhere::reserve];
}
