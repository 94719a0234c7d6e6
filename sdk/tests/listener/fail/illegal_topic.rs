use postrider::prelude::*;

#[listener(topic = "")]
async fn empty(_order: Bytes) {}

#[listener(topic = "order created")]
async fn space(_order: Bytes) {}

#[listener(topic = "order/*")]
async fn pattern(_order: Bytes) {}

#[listener(topic = "größe")]
async fn letters(_order: Bytes) {}

#[listener(topic = "order..created")]
async fn empty_part(_order: Bytes) {}

#[listener(topic = ".order")]
async fn empty_begin(_order: Bytes) {}

#[listener(topic = "order.")]
async fn empty_end(_order: Bytes) {}

#[listener(topic = "order.created.inventory.retry")]
async fn internal(_order: Bytes) {}

#[listener(topic = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")]
async fn long(_order: Bytes) {}

fn main() {}
