use postrider::prelude::*;

type Renamed = Extension<u64>;

#[listener(topic = "payment.settled", batch(size = 100, wait = "50ms"))]
async fn book(_payments: Vec<Bytes>, _publisher: Publisher, _actor: Renamed) {}

#[listener(topic = "payment.settled", batch(size = 100, wait = "50ms"))]
async fn book_maybe(_payments: Vec<Bytes>, _actor: Option<Extension<u64>>) {}

fn main() {
    let _ = listeners![book, book_maybe];
}
