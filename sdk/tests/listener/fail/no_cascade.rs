//! One mistake is one error: the function stays callable and `listeners!` finds it.
use postrider::prelude::*;

mod stock {
    use postrider::prelude::*;

    #[listener(topic = "")]
    pub async fn reserve(_order: Bytes) {}
}

async fn by_hand() {
    stock::reserve(Bytes::new()).await;
}

fn main() {
    let _ = listeners![stock::reserve];
    let _ = by_hand();
}
