//! The engine's queue and its verdicts, compiled with locks that let [`shuttle`] choose who goes on: models of what could
//! lose a message by interleaving. `tests/` runs them under very many schedules.
//!
//! Every lock is a place where another task may go on, and a model that waits for ever is found as a deadlock. So a lost
//! wake-up shows as well as a lost message.

use postrider_contract as contract;

mod drain;
mod engine;
mod revoke;
mod stage;

pub use drain::drain;
pub use revoke::revoke;

/// What of the meter the engine's files name.
mod meter {
    /// What a settlement was for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum What {
        Handled,
        Released,
    }
}
