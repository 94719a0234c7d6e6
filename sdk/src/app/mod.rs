//! Start-up, checks, supervision, drain.

mod brokers;
mod check;
mod dedup;
mod hold;
mod letters;
mod overview;
mod publisher;
mod running;
mod sharing;
mod signals;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use crate::engine::ListenerState;
pub use overview::ListenerStatus;
#[cfg(feature = "ops")]
pub(crate) use overview::Overview;
pub use running::Running;

use crate::config::Config;
use crate::connect;
use crate::contract::{Broker, DedupStore, Error, ErrorKind, Topology};
use crate::engine::Registration;
use crate::listener::StateMap;
use crate::middleware::Middleware;

/// How long a drain may take unless told otherwise.
const DRAIN_DEADLINE: Duration = Duration::from_secs(25);

/// A set of listeners with what they need, ready to be started.
///
/// ```no_run
/// use postrider::prelude::*;
///
/// #[listener(topic = "order.created")]
/// async fn greet(order: Json<serde_json::Value>) {
///     println!("{:?}", order.0);
/// }
///
/// #[tokio::main]
/// async fn main() -> Result<(), postrider::Error> {
///     App::from_env()?.listen(listeners![greet]).run().await
/// }
/// ```
pub struct App {
    name: Option<String>,
    url: String,
    brokers: BTreeMap<String, String>,
    state: StateMap,
    middleware: Vec<Arc<dyn Middleware>>,
    registrations: Vec<Registration>,
    topology: Topology,
    drain_deadline: Duration,
    metrics: bool,
    dedup: dedup::Given,
    config: Option<Config>,
    ops: Ops,
    #[cfg(feature = "testing")]
    tap: Option<Arc<crate::testing::Tap>>,
    /// A broker that is connected already, instead of the one at `url`.
    connected: Option<Arc<dyn Broker>>,
}

impl App {
    /// An app on the broker that `BROKER_URL` names. Unset, it is the embedded broker where no networked adapter is
    /// compiled in, and the usual local address where exactly one is.
    ///
    /// # Errors
    /// `BROKER_URL` is wrong, or needed and not set; `postrider.toml` or a `POSTRIDER__…` variable has not the expected
    /// form. No socket is opened yet.
    pub fn from_env() -> Result<Self, Error> {
        Self::new(&connect::url_from_env()?)
    }

    /// An app on the broker at `url`.
    ///
    /// # Errors
    /// As [`App::from_env`].
    pub fn new(url: &str) -> Result<Self, Error> {
        connect::check_url(url)?;
        Ok(Self {
            config: Some(Config::load()?),
            ops: ops_from_env()?,
            ..Self::bare(url)
        })
    }

    /// An app on a broker that is connected already: an adapter of your own, or an isolated embedded broker in a test.
    /// Reads no configuration.
    pub fn on(broker: Arc<dyn Broker>) -> Self {
        Self {
            connected: Some(broker),
            ..Self::bare("")
        }
    }

    fn bare(url: &str) -> Self {
        Self {
            name: None,
            url: url.to_owned(),
            brokers: BTreeMap::new(),
            state: StateMap::default(),
            middleware: Vec::new(),
            registrations: Vec::new(),
            topology: Topology::Declare,
            drain_deadline: DRAIN_DEADLINE,
            metrics: true,
            dedup: dedup::Given::Nothing,
            ops: Ops::default(),
            #[cfg(feature = "testing")]
            tap: None,
            config: None,
            connected: None,
        }
    }

    /// The application's name, which is the group of listeners that name none. Otherwise it is that of the program's file: give
    /// one where that changes, as with a version in it, since what waits for a group waits for that name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Another broker beside the one in `BROKER_URL`, for listeners with `broker = "name"`, or for
    /// [`Running::publisher_on`](crate::Running::publisher_on) alone. Configuration goes before it
    /// (`POSTRIDER__BROKER__<NAME>__URL`).
    pub fn broker(mut self, name: impl Into<String>, url: impl Into<String>) -> Self {
        self.brokers.insert(name.into(), url.into());
        self
    }

    /// A value for [`State`](crate::State) parameters, cloned for each delivery: usually an `Arc` or a pool. There is one of each
    /// type: a second replaces the first, so give two pools types of their own.
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.state.insert(value);
        self
    }

    /// Wraps every handler that takes one message; what was added first is outermost. Batch listeners are not wrapped, which
    /// the log says.
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.middleware.push(Arc::new(middleware));
        self
    }

    /// Adds listeners, collected with [`listeners!`](crate::listeners).
    pub fn listen(mut self, listeners: impl IntoIterator<Item = Registration>) -> Self {
        self.registrations.extend(listeners);
        self
    }

    /// Whether missing topics and queues are made ([`Topology::Declare`], the default) or reported.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// How long handlers may go on after a signal before they are cut off: 25 seconds unless told, which fits into the
    /// 30 that Kubernetes gives a pod.
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.drain_deadline = deadline;
        self
    }

    /// Whether to count and time through the `metrics` facade, and to ask the brokers for their depths every few seconds:
    /// true unless told. [`Running::status`] counts in any case.
    pub fn metrics(mut self, metrics: bool) -> Self {
        self.metrics = metrics;
        self
    }

    /// Where listeners with `dedup` keep the marks of what they have handled, instead of in their broker or in memory. See
    /// [`dedup`](crate::dedup).
    pub fn dedup_store(mut self, store: Arc<dyn DedupStore>) -> Self {
        self.dedup = dedup::Given::Store(store);
        self
    }

    /// The same, in the Redis at `url` (`redis://…`, with the cargo feature `redis`), or in the memory of this process
    /// (`memory://`). Configuration goes before it (`POSTRIDER__APP__DEDUP_URL`).
    pub fn dedup_url(mut self, url: impl Into<String>) -> Self {
        self.dedup = dedup::Given::Url(url.into());
        self
    }

    /// Where the operations endpoint listens, instead of what `POSTRIDER_OPS_ADDR` says: a port such as `9464`, for this
    /// machine alone, or an address such as `0.0.0.0:9464`. Port 0 is any: [`Running::ops_address`] tells it.
    ///
    /// # Errors
    /// It is no address.
    #[cfg(feature = "ops")]
    pub fn ops(mut self, address: &str) -> Result<Self, Error> {
        self.ops.address = Some(crate::ops::parse(address)?);
        crate::ops::install();
        Ok(self)
    }

    /// The token with which the operations endpoint pauses and resumes, instead of `POSTRIDER_OPS_TOKEN`.
    #[cfg(feature = "ops")]
    pub fn ops_token(mut self, token: impl Into<String>) -> Self {
        self.ops.token = Some(token.into());
        self
    }

    /// Tells a test what happens.
    #[cfg(feature = "testing")]
    pub(crate) fn tapped(mut self, tap: Arc<crate::testing::Tap>) -> Self {
        self.tap = Some(tap);
        self
    }

    /// Starts, and runs until SIGTERM or SIGINT; then drains: running handlers finish, acknowledgements and publishes
    /// are flushed. A second signal ends it at once.
    ///
    /// What blocks a thread cannot be cut off, such as a handler's `spawn_blocking`: dropping the runtime behind this, as
    /// `#[tokio::main]` does, waits until it is done (`Runtime::shutdown_timeout` waits no longer than told). So a second
    /// signal, or any once this has returned, ends the process with status 1 where it has not ended by itself within two
    /// seconds. A program that goes on afterwards, or has a use of its own for signals, takes [`App::start`].
    ///
    /// # Errors
    /// Start-up failed (every reason is listed), a listener ended by itself, or a second signal came.
    pub async fn run(self) -> Result<(), Error> {
        let mut signals = signals::Signals::new()?;
        let mut running = tokio::select! {
            started = self.start() => started?,
            signal = signals.next() => {
                tracing::info!(signal, "stopped during start-up");
                return Ok(());
            }
        };
        let ended = tokio::select! {
            ended = running.ended() => Err(ended),
            signal = signals.next() => {
                tracing::info!(signal, "draining");
                Ok(())
            }
        };
        let at_once = running.cut_off();
        tokio::select! {
            drained = running.shutdown() => ended.and(drained),
            signal = signals.next() => {
                at_once.cancel();
                let text = format!("stopped at once by a second signal ({signal}) before the drain was done");
                Err(Error::new(ErrorKind::Closed, text))
            }
        }
    }

    /// Connects, checks, declares, and starts every listener.
    ///
    /// # Errors
    /// Every reason that was found, a line each: nothing has been consumed then.
    pub async fn start(self) -> Result<Running, Error> {
        for listener in self.not_wrapped() {
            tracing::warn!(
                "listener `{listener}` takes batches, which middleware does not wrap: what it checks there belongs in an extractor"
            );
        }
        running::start(self).await
    }
}

impl App {
    /// The batch listeners that middleware passes by, where there is some.
    fn not_wrapped(&self) -> Vec<&'static str> {
        if self.middleware.is_empty() {
            return Vec::new();
        }
        let nothing = Config::default();
        let config = self.config.as_ref().unwrap_or(&nothing);
        // What is wrong with it is told by the start.
        let is_enabled =
            |known: &&Registration| config.resolve(&known.settings, &mut Vec::new()).settings.enabled;
        let batches = self
            .registrations
            .iter()
            .filter(|known| known.settings.batch.is_some());
        batches
            .filter(is_enabled)
            .map(|known| known.settings.name)
            .collect()
    }
}

/// The application's name: configuration's, the program's own choice, or the program's name.
fn application(name: Option<String>, config: &Config) -> String {
    let name = config.name().or(name);
    name.unwrap_or_else(connect::default_application)
}

#[cfg(feature = "ops")]
type Ops = crate::ops::Settings;
#[cfg(not(feature = "ops"))]
type Ops = ();

/// The recorder is installed at once, so that what is counted before the start is not missing.
#[cfg(feature = "ops")]
fn ops_from_env() -> Result<Ops, Error> {
    let ops = Ops::from_env()?;
    if ops.address.is_some() {
        crate::ops::install();
    }
    Ok(ops)
}

#[cfg(not(feature = "ops"))]
fn ops_from_env() -> Result<Ops, Error> {
    match std::env::var_os("POSTRIDER_OPS_ADDR") {
        Some(address) if !address.is_empty() => {
            let text = "POSTRIDER_OPS_ADDR needs the cargo feature `ops`, which is off";
            Err(Error::new(ErrorKind::Config, text))
        }
        _ => Ok(()),
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No URL: it may hold a password.
        f.debug_struct("App")
            .field("name", &self.name)
            .field("listeners", &self.registrations)
            .finish_non_exhaustive()
    }
}
