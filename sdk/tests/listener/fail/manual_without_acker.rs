use postrider::prelude::*;

#[listener(topic = "payment.settled", ack = manual)]
async fn book(payment: Bytes, publisher: Publisher) {}

fn main() {
    let _ = listeners![book];
}
