use postrider::prelude::*;

#[listener("order.created")]
async fn only_a_string(order: Bytes) {}

#[listener(topic)]
async fn no_value(order: Bytes) {}

#[listener(topic = )]
async fn nothing_after_equals(order: Bytes) {}

#[listener(topic = order.created)]
async fn no_quotes(order: Bytes) {}

#[listener(topic("order.created"))]
async fn parentheses(order: Bytes) {}

#[listener(topic: "order.created")]
async fn colon(order: Bytes) {}

#[listener(topic = "order.created", ordered = true)]
async fn flag_with_value(order: Bytes) {}

#[listener(topic = "order.created", retry = 5)]
async fn retry_as_number(order: Bytes) {}

#[listener(topic = "order.created", batch)]
async fn batch_as_flag(orders: Vec<Bytes>) {}

#[listener(topic = "order.created", batch(size = 100))]
async fn batch_without_wait(orders: Vec<Bytes>) {}

#[listener(topic = "order.created" group = "inventory")]
async fn no_comma(order: Bytes) {}

#[listener(topic = "order.created", , group = "inventory")]
async fn two_commas(order: Bytes) {}

#[listener(topic = "order.created", crate = "postrider")]
async fn crate_in_quotes(order: Bytes) {}

fn main() {}
