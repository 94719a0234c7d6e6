use postrider::prelude::*;

#[listener(topic = "order.created")]
async fn over_a_type<T: Extract>(_order: Bytes, _value: T) {}

#[listener(topic = "order.created")]
async fn over_a_constant<const SIZE: usize>(_order: Json<[u8; SIZE]>) {}

#[listener(topic = "order.created")]
async fn over_a_lifetime<'a>(_order: Json<&'a str>) {}

#[listener(topic = "order.created")]
async fn hidden(_order: Bytes, _value: impl Extract) {}

fn main() {
    let _ = listeners![over_a_type, over_a_constant, over_a_lifetime, hidden];
}
