//! Payments, through a gateway that is not always there.

use std::sync::Arc;
use std::time::Duration;

use postrider::prelude::*;
use thiserror::Error;

use crate::ledger::Ledger;
use crate::messages::{InventoryDecreased, PaymentCompleted, PaymentFailed};
use crate::run::{RUN_ID, RunId};

#[listener(
    topic = "inventory.decreased",
    group = "payment",
    publish = "payment.completed",
    concurrency = 32,
    retry(attempts = 8, backoff = "100ms..2s"),
    timeout = "10s"
)]
pub(crate) async fn take_payment(
    order: InventoryDecreased,
    State(gateway): State<Arc<Gateway>>,
    State(run): State<RunId>,
    publisher: Publisher,
) -> Result<Option<PaymentCompleted>, HandlerError> {
    let InventoryDecreased {
        order_id,
        customer,
        total_cents,
        card,
    } = order;
    // A gateway that cannot be reached is an error like any other: `?`, and the message comes again after the backoff.
    match gateway.charge(order_id, total_cents, &card).await? {
        Charge::Taken { receipt } => Ok(Some(PaymentCompleted {
            order_id,
            customer,
            receipt,
        })),
        Charge::Declined => {
            let reason = format!("{card} was declined");
            publisher
                .topic(PaymentFailed::TOPIC)
                .header(RUN_ID, run.as_str())
                .send(&PaymentFailed {
                    order_id,
                    customer,
                    reason,
                })
                .await?;
            Ok(None)
        }
    }
}

/// A payment provider's test environment, where a card's number says how it behaves: `…_declined` is declined, and at
/// `…_unreachable_2` the first two requests fail.
#[derive(Default)]
pub(crate) struct Gateway {
    requests: Ledger<(u64, u32), ()>,
    pub(crate) charges: Ledger<u64, u64>,
    pub(crate) declined: Ledger<u64, ()>,
}

pub(crate) enum Charge {
    Taken { receipt: String },
    Declined,
}

#[derive(Debug, Error)]
#[error("the payment gateway does not answer")]
pub(crate) struct Unreachable;

impl Gateway {
    /// Charges a card. The order's number is the idempotency key: charged twice, the customer pays once.
    async fn charge(&self, order: u64, cents: u64, card: &str) -> Result<Charge, Unreachable> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if card.ends_with(DECLINED) {
            self.declined.enter(order, ());
            return Ok(Charge::Declined);
        }
        for request in 0..failures(card) {
            if self.requests.get(&(order, request)).is_none() {
                self.requests.enter((order, request), ());
                return Err(Unreachable);
            }
        }
        self.charges.enter(order, cents);
        Ok(Charge::Taken {
            receipt: format!("receipt-{order}"),
        })
    }

    /// How many requests have failed.
    pub(crate) fn failed(&self) -> usize {
        self.requests.len()
    }
}

/// How the number of a card ends that is declined.
pub(crate) const DECLINED: &str = "_declined";

/// How many requests fail before this card is charged.
pub(crate) fn failures(card: &str) -> u32 {
    let count = card.split_once("_unreachable_").map(|(_, count)| count);
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}
