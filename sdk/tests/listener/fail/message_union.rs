use postrider::prelude::*;

#[derive(Message)]
#[message(topic = "order.created")]
union Order {
    number: u64,
    bits: [u8; 8],
}

fn main() {}
