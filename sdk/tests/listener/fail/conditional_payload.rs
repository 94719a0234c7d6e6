use postrider::prelude::*;

#[listener(topic = "order.created")]
async fn reserve(#[cfg(unix)] _order: Bytes, #[cfg(not(unix))] _order: Json<String>) {}

fn main() {}
