use postrider::prelude::*;

#[derive(Message, Serialize)]
#[message(topic = "order created", key = "order_id", version = -1, partition = id)]
struct Order {
    order_id: u64,
}

#[derive(Message, Serialize)]
#[message(topic = "order.created", topic = "order.changed")]
#[message(version = 1)]
#[message(version = 2)]
struct Twice;

#[derive(Message, Serialize)]
#[message(topic = "order.created.inventory.dlq")]
struct Internal;

#[derive(Message, Serialize)]
#[message(topic = "order.created", crate = "postrider")]
struct CrateInQuotes;

fn main() {}
