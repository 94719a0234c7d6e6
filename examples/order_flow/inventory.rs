//! The warehouse: sets goods aside for an order, and takes them back if it is not paid.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postrider::prelude::*;
use thiserror::Error;

use crate::catalogue::{ARTICLES, sells};
use crate::ledger::Ledger;
use crate::messages::{InventoryDecreased, OrderCreated, PaymentFailed};

#[listener(
    topic = "order.created",
    group = "inventory",
    publish = "inventory.decreased",
    concurrency = 32,
    retry(attempts = 8, backoff = "100ms..2s"),
    timeout = "10s"
)]
pub(crate) async fn reserve_stock(
    order: OrderCreated,
    State(warehouse): State<Arc<Warehouse>>,
) -> Result<InventoryDecreased, HandlerError> {
    match warehouse.reserve(order.order_id, &order.article, order.quantity) {
        // No attempt will ever find it: dead-lettered at once.
        Err(error @ StockError::UnknownArticle(_)) => return Err(HandlerError::permanent(error)),
        // The next attempt may: tried again after the backoff.
        Err(error @ StockError::SoldOut(_)) => return Err(error.into()),
        Ok(()) => {}
    }
    // Published, and confirmed, before the order's message is acknowledged.
    Ok(InventoryDecreased {
        order_id: order.order_id,
        customer: order.customer,
        total_cents: order.total_cents,
        card: order.card,
    })
}

#[listener(
    topic = "payment.failed",
    group = "inventory",
    concurrency = 8,
    retry(attempts = 8, backoff = "100ms..2s"),
    timeout = "10s"
)]
pub(crate) async fn release_stock(failed: PaymentFailed, State(warehouse): State<Arc<Warehouse>>) {
    warehouse.release(failed.order_id);
}

/// How many pieces of each article there are in the beginning.
pub(crate) const PIECES: u32 = 1_500;

#[derive(Debug, Error)]
pub(crate) enum StockError {
    #[error("the shop does not sell {0:?}")]
    UnknownArticle(String),
    #[error("{0} is sold out for now")]
    SoldOut(String),
}

/// What is on the shelves, and what was taken from them for whom.
#[derive(Default)]
pub(crate) struct Warehouse {
    /// How many pieces of each article are gone.
    taken: Mutex<HashMap<String, u32>>,
    pub(crate) reserved: Ledger<u64, Reservation>,
    pub(crate) released: Ledger<u64, ()>,
}

#[derive(Clone)]
pub(crate) struct Reservation {
    pub(crate) article: String,
    pub(crate) quantity: u32,
}

impl Warehouse {
    fn reserve(&self, order: u64, article: &str, quantity: u32) -> Result<(), StockError> {
        if !sells(article) {
            return Err(StockError::UnknownArticle(article.to_owned()));
        }
        let take = || {
            let mut taken = self.shelves();
            let taken = taken.entry(article.to_owned()).or_default();
            if *taken + quantity > PIECES {
                return Err(StockError::SoldOut(article.to_owned()));
            }
            *taken += quantity;
            Ok(Reservation {
                article: article.to_owned(),
                quantity,
            })
        };
        self.reserved.once(order, take).map(drop)
    }

    fn release(&self, order: u64) {
        let give_back = || {
            let reservation = self.reserved.get(&order).ok_or(())?;
            if let Some(taken) = self.shelves().get_mut(&reservation.article) {
                *taken -= reservation.quantity;
            }
            Ok(())
        };
        // Without a reservation there is nothing to give back.
        let _: Result<(), ()> = self.released.once(order, give_back);
    }

    /// How many pieces of each article are on the shelves now.
    pub(crate) fn on_hand(&self) -> HashMap<&'static str, u32> {
        let taken = self.shelves();
        let left = |article| PIECES - taken.get(article).copied().unwrap_or(0);
        ARTICLES
            .iter()
            .map(|&(article, _)| (article, left(article)))
            .collect()
    }

    fn shelves(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
