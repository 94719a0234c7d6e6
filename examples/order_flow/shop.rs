//! The departments together, as one app.

use std::sync::Arc;

use postrider::{Error, prelude::*};

use crate::audit::{Trail, audit_failure, audit_inventory, audit_order, audit_payment, audit_shipment};
use crate::inventory::{Warehouse, release_stock, reserve_stock};
use crate::notification::{
    Mailbox, notify_failure, notify_inventory, notify_order, notify_payment, notify_shipment,
};
use crate::payment::{Gateway, take_payment};
use crate::run::{RunId, ThisRun};
use crate::shipping::{Carrier, arrange_shipment};

/// What every department keeps, for as long as the run lasts.
pub(crate) struct Shop {
    pub(crate) run: RunId,
    pub(crate) this_run: ThisRun,
    pub(crate) warehouse: Arc<Warehouse>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) carrier: Arc<Carrier>,
    pub(crate) trail: Arc<Trail>,
    pub(crate) mailbox: Arc<Mailbox>,
}

impl Shop {
    pub(crate) fn new() -> Self {
        let run = RunId::new();
        Self {
            this_run: ThisRun::new(run.clone()),
            run,
            warehouse: Arc::default(),
            gateway: Arc::default(),
            carrier: Arc::default(),
            trail: Arc::default(),
            mailbox: Arc::default(),
        }
    }

    /// Each step its own listener and group. `BROKER_URL` says where it runs.
    pub(crate) fn app(&self) -> Result<App, Error> {
        Ok(App::from_env()?
            .name("order_flow")
            .state(self.run.clone())
            .state(self.warehouse.clone())
            .state(self.gateway.clone())
            .state(self.carrier.clone())
            .state(self.trail.clone())
            .state(self.mailbox.clone())
            .middleware(self.this_run.clone())
            .listen(listeners![
                reserve_stock,
                take_payment,
                arrange_shipment,
                release_stock
            ])
            .listen(listeners![
                audit_order,
                audit_inventory,
                audit_payment,
                audit_failure,
                audit_shipment
            ])
            .listen(listeners![
                notify_order,
                notify_inventory,
                notify_payment,
                notify_failure,
                notify_shipment
            ]))
    }

    /// How many orders are through: shipped, or their stock released.
    pub(crate) fn through(&self) -> usize {
        self.carrier.parcels.len() + self.warehouse.released.len()
    }

    /// How much has taken effect: grows as long as the run gets on.
    pub(crate) fn effects(&self) -> usize {
        self.warehouse.reserved.len()
            + self.gateway.failed()
            + self.gateway.charges.len()
            + self.through()
            + self.trail.entries.len()
            + self.mailbox.sent.len()
    }

    /// How many messages came again after they had taken effect.
    pub(crate) fn repeats(&self) -> u64 {
        self.warehouse.reserved.repeats()
            + self.warehouse.released.repeats()
            + self.gateway.charges.repeats()
            + self.gateway.declined.repeats()
            + self.carrier.parcels.repeats()
            + self.trail.entries.repeats()
            + self.mailbox.sent.repeats()
    }
}
