use std::cell::RefCell;
use std::rc::Rc;

use postrider::prelude::*;

async fn pause() {}

#[listener(topic = "order.created")]
async fn reserve(order: Bytes) {
    let seen = Rc::new(RefCell::new(order));
    pause().await;
    drop(seen);
}

fn main() {
    let _ = listeners![reserve];
}
