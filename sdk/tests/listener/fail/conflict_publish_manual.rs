use postrider::prelude::*;

#[derive(Message, Serialize)]
#[message(topic = "stock.reserved")]
struct Reserved;

#[listener(topic = "order.created", ack = manual, publish = "stock.reserved")]
async fn reserve(_order: Bytes, _ack: Acker) -> Reserved {
    Reserved
}

fn main() {}
