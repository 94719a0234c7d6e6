//! The expansion is clean where every lint is denied.
#![deny(
    warnings,
    missing_docs,
    missing_debug_implementations,
    missing_copy_implementations,
    nonstandard_style,
    rust_2018_idioms,
    unreachable_pub,
    unused_qualifications,
    unused_results,
    single_use_lifetimes,
    trivial_casts,
    trivial_numeric_casts,
    variant_size_differences,
    let_underscore_drop,
    clippy::all,
    clippy::pedantic,
    clippy::nursery
)]
#![forbid(unsafe_code)]

use postrider::prelude::*;

/// A message.
#[derive(Debug, Clone, Copy, Message, Serialize, Deserialize)]
#[message(topic = "order.created", key = order_id, version = 1)]
struct Order {
    order_id: u64,
}

/// Shared.
#[derive(Debug, Clone, Copy)]
struct Stock;

#[listener(
    topic = "order.created",
    group = "inventory",
    broker = "audit",
    concurrency = 8,
    prefetch = 200,
    retry(attempts = 5, backoff = "200ms..30s"),
    timeout = "10s",
    ack = auto,
    ordered,
    start = earliest,
    delivery = at_least_once,
    dead_letter = "order.failed",
    publish = "stock.reserved",
    rate = "500/s",
    max_size = "64KiB",
    enabled = true,
)]
async fn everything(order: Order, State(stock): State<Stock>, publisher: Publisher) -> Result<Order, HandlerError> {
    drop((stock, publisher));
    Ok(order)
}

#[listener(topic = "order.created", batch(size = 100, wait = "50ms"), broadcast)]
async fn many(_orders: Vec<Order>, _key: Key) {}

#[listener(topic = "order.created", ack = manual)]
async fn by_hand(_order: Order, ack: Acker) -> Result<(), HandlerError> {
    ack.ack().await?;
    Ok(())
}

fn main() {
    assert_eq!(listeners![everything, many, by_hand].len(), 3);
}
