//! Receive, hand to lanes, run the pipeline, settle: one listener's whole life. It never learns which broker it is on.

mod health;
mod lane;
mod queue;
mod run;
mod settles;

/// The locks and wake-ups of the queue and the verdicts; `tests/models` has others in their place.
mod sync {
    pub(super) use std::sync::{Mutex, MutexGuard, PoisonError};

    pub(super) use tokio::sync::Notify;
}

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub(crate) use health::Health;
pub use health::ListenerState;
pub(crate) use queue::Queue;
pub(crate) use run::run;
pub(crate) use settles::Settles;

use crate::listener::{AckMode, Batch, Listener, Many, Rate, Scope, Settings, Single, StateMap};
use crate::meter::Meter;
use crate::middleware::{Breaker, Dedup, Middleware, Policy};

/// A listener as an app takes it; made by [`listeners!`](crate::listeners).
pub struct Registration {
    pub(crate) settings: Settings,
    pub(crate) check: fn(&StateMap, &mut Vec<String>),
    pub(crate) lane: Lane,
}

/// A lane's whole loop, with the handler's type erased: once for each lane, never for each message.
pub(crate) type Lane = fn(Arc<Work>, usize) -> Pin<Box<dyn Future<Output = ()> + Send>>;

impl Registration {
    /// A listener that takes one message at a time.
    #[doc(hidden)]
    pub fn single<L: Single>() -> Self {
        Self::new::<L>(|work, queue| Box::pin(lane::single::<L>(work, queue)))
    }

    /// A listener that takes batches.
    #[doc(hidden)]
    pub fn many<L: Many>() -> Self {
        Self::new::<L>(|work, queue| Box::pin(lane::many::<L>(work, queue)))
    }

    fn new<L: Listener>(lane: Lane) -> Self {
        Self {
            settings: L::SETTINGS,
            check: L::check,
            lane,
        }
    }

    /// What the attribute says.
    #[doc(hidden)]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The listener's name.
    pub fn name(&self) -> &str {
        self.settings.name
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What `#[listener]` makes of a function's name.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no listener",
    label = "no function of this name has the attribute",
    note = "write `#[listener(topic = \"…\")]` on an `async fn` of this name"
)]
pub trait Register {
    /// For an app.
    fn register(self) -> Registration;
}

/// What the receiving side, the lanes and the settling side of one listener share.
pub(crate) struct Work {
    pub(crate) scope: Arc<Scope>,
    pub(crate) policy: Policy,
    pub(crate) options: Options,
    pub(crate) middleware: Arc<[Arc<dyn Middleware>]>,
    pub(crate) limiter: Option<Limiter>,
    pub(crate) breaker: Option<Breaker>,
    pub(crate) dedup: Option<Dedup>,
    /// One, or one for each lane where order is kept.
    pub(crate) queues: Vec<Queue>,
    pub(crate) settles: Settles,
    #[cfg(feature = "otel")]
    pub(crate) links: crate::trace::Links,
    pub(crate) meter: Meter,
    pub(crate) health: Health,
    /// Ends handlers that outlast the drain's deadline.
    pub(crate) cut_off: CancellationToken,
}

pub(crate) type Limiter = governor::DefaultDirectRateLimiter;

/// What configuration settled on, as far as the engine needs it.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) concurrency: usize,
    pub(crate) in_flight: usize,
    pub(crate) timeout: Option<Duration>,
    pub(crate) ack: AckMode,
    pub(crate) batch: Option<Batch>,
    /// How long handlers may run on when the subscription has ended.
    pub(crate) drain_deadline: Duration,
    /// Unsettled deliveries are leased for this long.
    pub(crate) lease: Option<Duration>,
}

/// A limiter that spreads `rate` evenly.
pub(crate) fn limiter(rate: Rate) -> Option<Limiter> {
    let period = rate.per.checked_div(rate.count)?;
    Some(Limiter::direct(governor::Quota::with_period(period)?))
}
