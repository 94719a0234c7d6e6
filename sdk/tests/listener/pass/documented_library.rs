//! Public listeners need no more documentation than their functions.
#![deny(missing_docs)]

/// Listeners of orders.
pub mod orders {
    use postrider::prelude::*;

    /// Reserves stock.
    #[listener(topic = "order.created")]
    pub async fn reserve(_order: Bytes) {}

    #[listener(topic = "order.created")]
    pub(crate) async fn count(_order: Bytes) {}
}

fn main() {
    assert_eq!(postrider::listeners![orders::reserve, orders::count].len(), 2);
}
