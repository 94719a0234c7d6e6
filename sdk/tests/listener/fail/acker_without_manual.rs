use postrider::prelude::*;

type Renamed = Acker;

#[listener(topic = "payment.settled")]
async fn book(_payment: Bytes, _ack: Renamed) {}

#[listener(topic = "payment.settled", batch(size = 100, wait = "50ms"))]
async fn book_many(_payments: Vec<Bytes>, _ack: Acker) {}

fn main() {
    let _ = listeners![book, book_many];
}
