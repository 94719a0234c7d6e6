use postrider::prelude::*;

#[derive(Message, Serialize)]
#[message(topic = "stock.reserved")]
struct Reserved;

#[listener(topic = "order.created", batch(size = 100, wait = "50ms"), ack = manual)]
async fn manual(_orders: Vec<Bytes>, _ack: Acker) {}

#[listener(topic = "order.created", batch(size = 100, wait = "50ms"), publish = "stock.reserved")]
async fn reply(_orders: Vec<Bytes>) -> Reserved {
    Reserved
}

#[listener(topic = "order.created", batch(size = 100, wait = "50ms"), prefetch = 99)]
async fn never_full(_orders: Vec<Bytes>) {}

fn main() {}
