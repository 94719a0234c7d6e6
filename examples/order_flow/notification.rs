//! Mail to customers: a group that sees every topic too, and gets its own copy of each message.

use std::sync::Arc;

use postrider::prelude::*;

use crate::ledger::Ledger;
use crate::messages::{
    Customer, InventoryDecreased, OrderCreated, PaymentCompleted, PaymentFailed, ShipmentArranged,
};

#[listener(topic = "order.created", group = "notification", concurrency = 8)]
pub(crate) async fn notify_order(order: OrderCreated, State(mailbox): State<Arc<Mailbox>>) {
    let text = format!("we have your order of {}", order.placed_at);
    mailbox.send(order.order_id, Mail::Ordered, &order.customer, &text);
}

#[listener(topic = "inventory.decreased", group = "notification", concurrency = 8)]
pub(crate) async fn notify_inventory(reserved: InventoryDecreased, State(mailbox): State<Arc<Mailbox>>) {
    mailbox.send(
        reserved.order_id,
        Mail::Reserved,
        &reserved.customer,
        "your goods are set aside",
    );
}

#[listener(topic = "payment.completed", group = "notification", concurrency = 8)]
pub(crate) async fn notify_payment(paid: PaymentCompleted, State(mailbox): State<Arc<Mailbox>>) {
    let text = format!("thank you for your payment: {}", paid.receipt);
    mailbox.send(paid.order_id, Mail::Paid, &paid.customer, &text);
}

#[listener(topic = "payment.failed", group = "notification", concurrency = 8)]
pub(crate) async fn notify_failure(failed: PaymentFailed, State(mailbox): State<Arc<Mailbox>>) {
    let text = format!("you cannot have your goods: {}", failed.reason);
    mailbox.send(failed.order_id, Mail::NotPaid, &failed.customer, &text);
}

#[listener(topic = "shipment.arranged", group = "notification", concurrency = 8)]
pub(crate) async fn notify_shipment(shipment: ShipmentArranged, State(mailbox): State<Arc<Mailbox>>) {
    let Customer {
        street,
        city,
        country,
        ..
    } = &shipment.customer;
    let text = format!(
        "{} is on its way to {street}, {city} ({country})",
        shipment.parcel
    );
    mailbox.send(shipment.order_id, Mail::Shipped, &shipment.customer, &text);
}

/// What a mail is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mail {
    Ordered,
    Reserved,
    Paid,
    NotPaid,
    Shipped,
}

/// Sends each mail once.
#[derive(Default)]
pub(crate) struct Mailbox {
    pub(crate) sent: Ledger<(u64, Mail), String>,
}

impl Mailbox {
    fn send(&self, order: u64, mail: Mail, customer: &Customer, text: &str) {
        let Customer { name, email, .. } = customer;
        let mail_text = format!("To: {email}\n\nDear {name}, {text}.");
        self.sent.enter((order, mail), mail_text);
    }
}
