use std::rc::Rc;

use postrider::prelude::*;

async fn pause() {}

#[listener(topic = "order.created", batch(size = 100, wait = "50ms"))]
async fn reserve(orders: Vec<Bytes>) -> Result<(), HandlerError> {
    let seen = Rc::new(orders);
    pause().await;
    drop(seen);
    Ok(())
}

fn main() {
    let _ = listeners![reserve];
}
