//! What the departments of the shop tell one another.

use postrider::prelude::*;

/// A customer has ordered.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "order.created", key = order_id, version = 1)]
pub(crate) struct OrderCreated {
    pub(crate) order_id: u64,
    pub(crate) placed_at: String,
    pub(crate) customer: Customer,
    pub(crate) article: String,
    pub(crate) quantity: u32,
    pub(crate) total_cents: u64,
    pub(crate) card: String,
}

/// The goods are set aside.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "inventory.decreased", key = order_id, version = 1)]
pub(crate) struct InventoryDecreased {
    pub(crate) order_id: u64,
    pub(crate) customer: Customer,
    pub(crate) total_cents: u64,
    pub(crate) card: String,
}

/// The customer has paid.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "payment.completed", key = order_id, version = 1)]
pub(crate) struct PaymentCompleted {
    pub(crate) order_id: u64,
    pub(crate) customer: Customer,
    pub(crate) receipt: String,
}

/// The customer's card was declined.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "payment.failed", key = order_id, version = 1)]
pub(crate) struct PaymentFailed {
    pub(crate) order_id: u64,
    pub(crate) customer: Customer,
    pub(crate) reason: String,
}

/// The parcel is with the carrier.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "shipment.arranged", key = order_id, version = 1)]
pub(crate) struct ShipmentArranged {
    pub(crate) order_id: u64,
    pub(crate) customer: Customer,
    pub(crate) parcel: String,
}

/// Who ordered, and where it goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Customer {
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) street: String,
    pub(crate) city: String,
    pub(crate) country: String,
}
