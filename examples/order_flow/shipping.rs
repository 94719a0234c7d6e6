//! Parcels: what is paid goes to the carrier.

use std::sync::Arc;

use postrider::prelude::*;

use crate::ledger::Ledger;
use crate::messages::{PaymentCompleted, ShipmentArranged};

#[listener(
    topic = "payment.completed",
    group = "shipping",
    publish = "shipment.arranged",
    concurrency = 32,
    retry(attempts = 8, backoff = "100ms..2s"),
    timeout = "10s"
)]
pub(crate) async fn arrange_shipment(
    paid: PaymentCompleted,
    State(carrier): State<Arc<Carrier>>,
) -> ShipmentArranged {
    let parcel = carrier.hand_over(paid.order_id);
    ShipmentArranged {
        order_id: paid.order_id,
        customer: paid.customer,
        parcel,
    }
}

/// Collects the parcels.
#[derive(Default)]
pub(crate) struct Carrier {
    pub(crate) parcels: Ledger<u64, String>,
}

impl Carrier {
    fn hand_over(&self, order: u64) -> String {
        let parcel = format!("parcel-{order}");
        self.parcels.enter(order, parcel.clone());
        parcel
    }
}
