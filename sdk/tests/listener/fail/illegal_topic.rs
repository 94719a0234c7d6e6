use postrider::prelude::*;

#[listener(topic = "")]
async fn empty(order: Bytes) {}

#[listener(topic = "order created")]
async fn space(order: Bytes) {}

#[listener(topic = "order/*")]
async fn pattern(order: Bytes) {}

#[listener(topic = "größe")]
async fn letters(order: Bytes) {}

#[listener(topic = "order..created")]
async fn empty_part(order: Bytes) {}

#[listener(topic = ".order")]
async fn empty_begin(order: Bytes) {}

#[listener(topic = "order.")]
async fn empty_end(order: Bytes) {}

#[listener(topic = "order.created.inventory.retry")]
async fn internal(order: Bytes) {}

#[listener(topic = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")]
async fn long(order: Bytes) {}

fn main() {}
