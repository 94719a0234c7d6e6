use postrider::prelude::*;

#[listener(topic = "order.created")]
async fn over_a_type<T: Extract>(order: Bytes, value: T) {}

#[listener(topic = "order.created")]
async fn over_a_constant<const SIZE: usize>(order: Json<[u8; SIZE]>) {}

#[listener(topic = "order.created")]
async fn over_a_lifetime<'a>(order: Json<&'a str>) {}

#[listener(topic = "order.created")]
async fn hidden(order: Bytes, value: impl Extract) {}

fn main() {
    let _ = listeners![over_a_type, over_a_constant, over_a_lifetime, hidden];
}
