use postrider::prelude::*;

#[listener(topic = "payment.settled", ack = manual)]
async fn book(_payment: Bytes, _first: Acker, _publisher: Publisher, _second: Acker) {}

fn main() {
    let _ = listeners![book];
}
