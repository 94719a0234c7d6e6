use postrider::prelude::*;

#[listener(topic = "order.created")]
async fn reserve(_order: Bytes) -> ! {
    loop {}
}

fn main() {
    let _ = listeners![reserve];
}
