use postrider::prelude::*;

#[listener(topic = "payment.settled", ack = manual)]
async fn book(_payment: Bytes, _publisher: Publisher) {}

fn main() {
    let _ = listeners![book];
}
