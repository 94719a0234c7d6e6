use postrider::prelude::*;

#[listener(topic = "order.created")]
async fn reserve(#[cfg(unix)] order: Bytes, #[cfg(not(unix))] order: Json<String>) {}

fn main() {}
