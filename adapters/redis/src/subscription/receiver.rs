use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use postrider_contract::{Delivery, Error, Event, Receiver};
use tokio_util::sync::CancellationToken;

use crate::subscription::table::Table;

/// Hands out from a table. Dropped, it stops the fetching.
pub(crate) struct TableReceiver {
    pub(crate) table: Arc<Table>,
    pub(crate) stop: CancellationToken,
}

#[async_trait]
impl Receiver for TableReceiver {
    async fn next(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<Event, Error> {
        loop {
            let mut arrived = pin!(self.table.arrived.notified());
            // Before the look, so that nothing arrives between the two.
            arrived.as_mut().enable();
            if let Some(outcome) = self.table.take(max, into) {
                return outcome;
            }
            arrived.await;
        }
    }

    async fn pause(&mut self, paused: bool) {
        self.table.pause(paused);
    }
}

impl Drop for TableReceiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
