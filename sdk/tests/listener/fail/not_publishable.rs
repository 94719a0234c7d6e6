use postrider::prelude::*;

#[listener(topic = "order.created", publish = "stock.reserved")]
async fn nothing(_order: Bytes) {}

#[listener(topic = "order.created", publish = "stock.reserved")]
async fn a_number(order: Bytes) -> Result<usize, HandlerError> {
    Ok(order.len())
}

fn main() {
    let _ = listeners![nothing, a_number];
}
