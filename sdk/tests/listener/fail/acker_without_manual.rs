use postrider::prelude::*;

type Renamed = Acker;

#[listener(topic = "payment.settled")]
async fn book(payment: Bytes, ack: Renamed) {}

#[listener(topic = "payment.settled", batch(size = 100, wait = "50ms"))]
async fn book_many(payments: Vec<Bytes>, ack: Acker) {}

fn main() {
    let _ = listeners![book, book_many];
}
