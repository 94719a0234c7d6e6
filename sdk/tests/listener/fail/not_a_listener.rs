use postrider::prelude::*;

async fn reserve(_order: Bytes) {}

struct Stock {}

fn main() {
    let _ = listeners![reserve];
    let _ = listeners![Stock];
    let _ = listeners![nowhere::reserve];
}
