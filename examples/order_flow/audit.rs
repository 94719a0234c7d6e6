//! The audit trail: a group that sees every message of every topic, in its raw form, good or bad.

use std::sync::Arc;

use postrider::prelude::*;

use crate::ledger::Ledger;

#[listener(topic = "order.created", group = "audit", concurrency = 8)]
pub(crate) async fn audit_order(message: Bytes, entry: Entry, State(trail): State<Arc<Trail>>) {
    trail.record(entry, &message);
}

#[listener(topic = "inventory.decreased", group = "audit", concurrency = 8)]
pub(crate) async fn audit_inventory(message: Bytes, entry: Entry, State(trail): State<Arc<Trail>>) {
    trail.record(entry, &message);
}

#[listener(topic = "payment.completed", group = "audit", concurrency = 8)]
pub(crate) async fn audit_payment(message: Bytes, entry: Entry, State(trail): State<Arc<Trail>>) {
    trail.record(entry, &message);
}

#[listener(topic = "payment.failed", group = "audit", concurrency = 8)]
pub(crate) async fn audit_failure(message: Bytes, entry: Entry, State(trail): State<Arc<Trail>>) {
    trail.record(entry, &message);
}

#[listener(topic = "shipment.arranged", group = "audit", concurrency = 8)]
pub(crate) async fn audit_shipment(message: Bytes, entry: Entry, State(trail): State<Arc<Trail>>) {
    trail.record(entry, &message);
}

/// What a message was about, taken from the delivery: an extractor of one's own.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) topic: String,
    pub(crate) key: String,
}

impl Extract for Entry {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        let key = cx.message().key.as_deref().unwrap_or_default();
        Ok(Self {
            topic: cx.topic().to_owned(),
            key: String::from_utf8_lossy(key).into_owned(),
        })
    }
}

/// Everything that was said, with its size.
#[derive(Default)]
pub(crate) struct Trail {
    pub(crate) entries: Ledger<Entry, usize>,
}

impl Trail {
    fn record(&self, entry: Entry, message: &Bytes) {
        self.entries.enter(entry, message.len());
    }
}
