//! All in one pass, and `listeners!` does not fail as well.
use postrider::prelude::*;

#[listener(topic = "order created", concurency = 8, timeout = "soon", ordered, broadcast)]
fn reserve<T>(_order: &T, _count: &u32) -> Result<(), HandlerError> {
    Ok(())
}

fn main() {
    let _ = listeners![reserve];
}
