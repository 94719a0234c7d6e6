use postrider::prelude::*;

#[listener("order.created")]
async fn only_a_string(_order: Bytes) {}

#[listener(topic)]
async fn no_value(_order: Bytes) {}

#[listener(topic = )]
async fn nothing_after_equals(_order: Bytes) {}

#[listener(topic = order.created)]
async fn no_quotes(_order: Bytes) {}

#[listener(topic("order.created"))]
async fn parentheses(_order: Bytes) {}

#[listener(topic: "order.created")]
async fn colon(_order: Bytes) {}

#[listener(topic = "order.created", ordered = true)]
async fn flag_with_value(_order: Bytes) {}

#[listener(topic = "order.created", retry = 5)]
async fn retry_as_number(_order: Bytes) {}

#[listener(topic = "order.created", batch)]
async fn batch_as_flag(_orders: Vec<Bytes>) {}

#[listener(topic = "order.created", batch(size = 100))]
async fn batch_without_wait(_orders: Vec<Bytes>) {}

#[listener(topic = "order.created" group = "inventory")]
async fn no_comma(_order: Bytes) {}

#[listener(topic = "order.created", ordered group = "inventory", retry(attempts = 5) timeout = "1s")]
async fn no_comma_after_others(_order: Bytes) {}

#[listener(topic = "order.created", retry(attempts = 5) batch(size = 1, wait = "1s"))]
async fn no_comma_between_lists(_orders: Vec<Bytes>) {}

#[listener(topic = "order.created", , group = "inventory")]
async fn two_commas(_order: Bytes) {}

#[listener(topic = "order.created", crate = "postrider")]
async fn crate_in_quotes(_order: Bytes) {}

fn main() {}
