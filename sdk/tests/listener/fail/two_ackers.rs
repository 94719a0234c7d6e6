use postrider::prelude::*;

#[listener(topic = "payment.settled", ack = manual)]
async fn book(payment: Bytes, first: Acker, publisher: Publisher, second: Acker) {}

fn main() {
    let _ = listeners![book];
}
