use postrider::prelude::*;

#[derive(Clone)]
struct Stock;

#[listener(topic = "order.created")]
async fn reserve(order: Bytes, stock: Stock) {}

#[listener(topic = "order.created")]
async fn payload_in_second_place(publisher: Bytes, order: Json<String>) {}

fn main() {
    let _ = listeners![reserve, payload_in_second_place];
}
