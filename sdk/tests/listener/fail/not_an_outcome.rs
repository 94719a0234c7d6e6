use postrider::prelude::*;

#[listener(topic = "order.created")]
async fn count(order: Bytes) -> usize {
    order.len()
}

#[derive(Debug)]
struct NoError;

#[listener(topic = "order.created")]
async fn fails(_order: Bytes) -> Result<(), NoError> {
    Err(NoError)
}

fn main() {
    let _ = listeners![count, fails];
}
