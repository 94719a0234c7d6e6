//! All in one pass, and `listeners!` does not fail as well.
use postrider::prelude::*;

#[listener(topic = "order created", concurency = 8, timeout = "soon", ordered, broadcast)]
fn reserve<T>(order: &T, count: &u32) -> Result<(), HandlerError> {
    Ok(())
}

fn main() {
    let _ = listeners![reserve];
}
