use postrider::prelude::*;

#[derive(Clone)]
struct Stock;

#[listener(topic = "order.created")]
async fn reserve(_order: Bytes, _stock: Stock) {}

#[listener(topic = "order.created")]
async fn payload_in_second_place(_publisher: Bytes, _order: Json<String>) {}

fn main() {
    let _ = listeners![reserve, payload_in_second_place];
}
