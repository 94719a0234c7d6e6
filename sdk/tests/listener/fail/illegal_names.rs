use postrider::prelude::*;

#[listener(topic = "order.created", group = "inventory.eu")]
async fn group_with_a_dot(_order: Bytes) {}

#[listener(topic = "order.created", group = "", broker = "the audit")]
async fn both(_order: Bytes) {}

#[listener(topic = "order.created", dead_letter = "order failed", publish = "order.created.inventory.dlq")]
async fn topics(_order: Bytes) {}

fn main() {}
