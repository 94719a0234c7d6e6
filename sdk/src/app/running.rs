use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::check::{self, Planned};
use super::dedup::{Given, Stores};
use super::overview::{ListenerStatus, Overview, PATIENCE, Started};
use super::{App, brokers, table};
use crate::Publisher;
use crate::connect;
use crate::contract::{Broker, Capabilities, Error, ErrorKind, Sharing, Spec, Status, Subscription};
use crate::dead_letters::DeadLetters;
use crate::engine::{self, Health, ListenerState, Options, Queue, Settles, Work};
use crate::listener::{Scope, StateMap};
use crate::meter::{self, Depths, Meter};
use crate::middleware::{Breaker, Clock, Dedup, Middleware, Policy, Suspects};

/// Longer than anybody waits, and a time that can be added to now.
const LONGEST_DRAIN: Duration = Duration::from_secs(365 * 24 * 3600);
/// After the drain's deadline, how long handlers that do not yield are waited for.
const GRACE: Duration = Duration::from_secs(2);

/// An app whose listeners are running, as long as this is kept: dropped, it ends them at once, handlers in their middle, and says
/// so in the log. [`Running::shutdown`] drains.
#[must_use = "dropped, it ends its listeners without a drain: keep it, and call `shutdown`"]
pub struct Running {
    overview: Arc<Overview>,
    publishers: BTreeMap<String, Publisher>,
    tasks: JoinSet<Result<(), Error>>,
    /// What goes on beside the listeners, and ends with this.
    beside: JoinSet<()>,
    drain: CancellationToken,
    cut_off: CancellationToken,
    deadline: Duration,
    /// Ended after what uses them.
    stores: Stores,
    #[cfg(feature = "ops")]
    ops_address: Option<std::net::SocketAddr>,
}

pub(super) async fn start(app: App) -> Result<Running, Error> {
    if cfg!(panic = "abort") {
        tracing::warn!(
            "built with `panic = \"abort\"`: a panicking handler ends the process instead of being retried"
        );
    }
    let App {
        name,
        url,
        brokers,
        state,
        middleware,
        registrations,
        mut topology,
        mut drain_deadline,
        mut metrics,
        mut dedup,
        config,
        ops,
        #[cfg(feature = "testing")]
        tap,
        connected,
    } = app;
    let config = config.unwrap_or_default();
    let mut problems = Vec::new();
    let is_named = name.is_some() || config.name().is_some();
    let application = super::application(name, &config);
    topology = config.topology(&mut problems).unwrap_or(topology);
    drain_deadline = config
        .drain_deadline(&mut problems)
        .unwrap_or(drain_deadline)
        .min(LONGEST_DRAIN);
    metrics = config.metrics(&mut problems).unwrap_or(metrics);
    dedup = config.dedup_url().map_or(dedup, Given::Url);
    dedup.check(&mut problems);
    let urls = brokers::urls(url, brokers, &registrations, &config, &mut problems);
    let to_publish = brokers::without_listeners(&urls, &registrations);
    let planned = check::plan(registrations, &config, &application, &state, &mut problems);

    for listener in planned
        .iter()
        .filter(|listener| !urls.contains_key(&listener.broker))
    {
        let known: Vec<_> = urls.keys().filter(|name| !name.is_empty()).cloned().collect();
        problems.push(format!(
            "listener `{}`: there is no broker `{}`; named brokers: [{}]; add it with `.broker(\"{}\", url)`",
            listener.spec.listener,
            listener.broker,
            known.join(", "),
            listener.broker
        ));
    }
    refuse(&problems, ErrorKind::Config)?;

    let drain = CancellationToken::new();
    let mut beside = JoinSet::new();
    #[cfg(feature = "ops")]
    let (ops_address, started) = {
        let started = Arc::default();
        let mut bound = None;
        if let Some(address) = ops.address {
            let socket = crate::ops::bind(address).await?;
            bound = socket.local_addr().ok();
            // From now on, so that who asks whether the process lives is answered while a broker is slow.
            let seen = Arc::clone(&started);
            beside.spawn(crate::ops::serve(socket, seen, ops.token, drain.clone()));
        }
        (bound, started)
    };
    #[cfg(not(feature = "ops"))]
    let () = ops;
    if metrics {
        meter::describe();
        tell_not_ready(&planned, &urls, connected.as_ref());
    }
    let brokers = match brokers::open(&urls, connected, &planned, &to_publish, &application).await {
        Ok(brokers) => brokers,
        Err(error) => {
            // Its port is free again when this returns.
            beside.shutdown().await;
            return Err(error);
        }
    };
    check::tell_of_other_topics(&planned);
    if !is_named {
        check::tell_of_files_name(&planned, &urls);
    }
    let opened = async {
        let stores = Stores::open(&planned, &brokers, dedup, &application).await?;
        let subscriptions = open(&planned, &brokers, topology).await;
        if subscriptions.is_err() {
            stores.close().await;
        }
        Ok((subscriptions?, stores))
    };
    match opened.await {
        Ok((subscriptions, stores)) => {
            if !planned.is_empty() {
                tracing::info!("{}", table::table(&planned, &brokers, &stores));
            }
            let publisher = |(name, broker): (&String, &Arc<dyn Broker>)| {
                #[cfg_attr(not(feature = "testing"), allow(unused_mut))]
                let mut publisher = Publisher::new(broker.clone(), metrics);
                #[cfg(feature = "testing")]
                publisher.set_tap(tap.clone());
                (name.clone(), publisher)
            };
            #[cfg(feature = "testing")]
            let clock = tap.as_ref().map(|_| Clock::of_test()).unwrap_or_default();
            #[cfg(not(feature = "testing"))]
            let clock = Clock::default();
            let shared = Shared {
                clock,
                suspects: Arc::default(),
                application: application.into(),
                state: Arc::new(state),
                middleware: middleware.into(),
                publishers: brokers.iter().map(publisher).collect(),
                drain,
                cut_off: CancellationToken::new(),
                drain_deadline,
                metrics,
                stores,
            };
            let mut tasks = JoinSet::new();
            let mut listeners = Vec::new();
            for (listener, subscription) in planned.into_iter().zip(subscriptions) {
                if let Some(broker) = brokers.get(&listener.broker) {
                    listeners.push(launch(listener, &**broker, subscription, &shared, &mut tasks));
                }
            }
            let overview = Arc::new(Overview { listeners, brokers });
            if metrics {
                beside.spawn(overview.clone().keep_gauges());
            }
            #[cfg(feature = "ops")]
            let _ = started.set(overview.clone());
            Ok(Running {
                #[cfg(feature = "ops")]
                ops_address,
                overview,
                publishers: shared.publishers,
                tasks,
                beside,
                drain: shared.drain,
                cut_off: shared.cut_off,
                deadline: drain_deadline,
                stores: shared.stores,
            })
        }
        Err(error) => {
            for broker in brokers.values() {
                let _ = broker.close(Duration::from_secs(1)).await;
            }
            beside.shutdown().await;
            Err(error)
        }
    }
}

/// What all listeners of an app share.
struct Shared {
    clock: Clock,
    suspects: Arc<Suspects>,
    application: Arc<str>,
    state: Arc<StateMap>,
    middleware: Arc<[Arc<dyn Middleware>]>,
    publishers: BTreeMap<String, Publisher>,
    drain: CancellationToken,
    cut_off: CancellationToken,
    drain_deadline: Duration,
    metrics: bool,
    stores: Stores,
}

/// Lets the gauges say of every listener that it is not ready, also while its broker does not answer.
fn tell_not_ready(planned: &[Planned], urls: &BTreeMap<String, String>, connected: Option<&Arc<dyn Broker>>) {
    for listener in planned {
        let system = match connected.filter(|_| listener.broker.is_empty()) {
            Some(broker) => Some(broker.capabilities().system),
            None => urls.get(&listener.broker).and_then(|url| connect::system(url)),
        };
        // What they say when they are dropped.
        drop(system.map(|system| Depths::new(listener.subject(system))));
    }
}

/// Checks and declares everything, then subscribes; subscriptions in the order of `planned`.
async fn open(
    planned: &[Planned],
    brokers: &BTreeMap<String, Arc<dyn Broker>>,
    topology: crate::contract::Topology,
) -> Result<Vec<Subscription>, Error> {
    let mut problems = Vec::new();
    check::against_capabilities(planned, brokers, &mut problems);
    refuse(&problems, ErrorKind::Unsupported)?;
    let specs_of = |name: &str| -> Vec<Spec> {
        planned
            .iter()
            .filter(|listener| listener.broker == name)
            .map(|listener| listener.spec.clone())
            .collect()
    };
    for (name, broker) in brokers {
        if let Err(found) = broker.plan(&specs_of(name), topology).await {
            problems.extend(found.iter().map(ToString::to_string));
        }
    }
    refuse(&problems, ErrorKind::Topology)?;
    let mut opened = BTreeMap::new();
    for (name, broker) in brokers {
        let specs = specs_of(name);
        if !specs.is_empty() {
            opened.insert(name.as_str(), broker.open(specs).await?.into_iter());
        }
    }
    let missing = || {
        Error::new(
            ErrorKind::Internal,
            "the adapter opened fewer subscriptions than it was asked for",
        )
    };
    let next = |listener: &Planned| {
        opened
            .get_mut(listener.broker.as_str())
            .and_then(Iterator::next)
            .ok_or_else(missing)
    };
    planned.iter().map(next).collect()
}

/// One error for all problems, a line each.
pub(super) fn refuse(problems: &[String], kind: ErrorKind) -> Result<(), Error> {
    match problems {
        [] => Ok(()),
        [only] => Err(Error::new(kind, only.clone())),
        many => Err(Error::new(
            kind,
            format!("{} problems:\n  {}", many.len(), many.join("\n  ")),
        )),
    }
}

/// The longest that a message waits for its next attempt. Where it stays unsettled meanwhile, what is configured has been
/// checked; what a handler asks for may not keep it longer than the broker allows, all its attempts together.
fn longest_wait(listener: &Planned, can: &Capabilities) -> Duration {
    let retry = &listener.resolved.settings.retry;
    let share = |hold: Duration| (hold / retry.attempts.max(1)).max(retry.backoff.cap);
    let hold = can.max_hold.filter(|_| listener.in_process());
    hold.map_or(can.max_delay, share)
}

/// Starts one listener.
fn launch(
    listener: Planned,
    broker: &dyn Broker,
    subscription: Subscription,
    shared: &Shared,
    tasks: &mut JoinSet<Result<(), Error>>,
) -> Started {
    let can = broker.capabilities();
    let settings = &listener.resolved.settings;
    let spec = &listener.spec;
    let lanes = settings.concurrency as usize;
    let queues = if settings.ordered { lanes } else { 1 };
    let work = Arc::new(Work {
        scope: Arc::new(Scope {
            listener: spec.listener.clone(),
            group: spec.group.clone(),
            application: shared.application.clone(),
            state: shared.state.clone(),
            publisher: shared.publishers[&listener.broker].clone(),
        }),
        policy: Policy {
            retry: settings.retry,
            topic: spec.topic().clone(),
            group: spec.group.clone(),
            application: shared.application.clone(),
            dead_letter: listener.dead_letter(),
            in_process: listener.in_process(),
            max_size: settings.max_size,
            max_delay: longest_wait(&listener, can),
            clock: shared.clock,
            suspects: shared.suspects.clone(),
        },
        options: Options {
            concurrency: lanes,
            in_flight: listener.in_flight,
            timeout: settings.timeout,
            ack: settings.ack,
            batch: settings.batch,
            drain_deadline: shared.drain_deadline,
            lease: can.lease,
        },
        middleware: shared.middleware.clone(),
        limiter: settings.rate.and_then(engine::limiter),
        breaker: settings.breaker.map(Breaker::new),
        dedup: settings.dedup.and_then(|dedup| {
            let store = shared.stores.of(&spec.listener)?.clone();
            Some(Dedup::new(store, spec.topic().clone(), spec.group.clone(), dedup))
        }),
        queues: (0..queues)
            .map(|_| Queue::new(settings.ordered, lanes / queues))
            .collect(),
        settles: Settles::new(can.lease.is_some(), settings.ordered),
        #[cfg(feature = "otel")]
        links: crate::trace::Links::default(),
        meter: Meter::new(listener.subject(can.system), shared.metrics),
        health: Health::new(),
        cut_off: shared.cut_off.child_token(),
    });
    let lane = listener.registration.lane;
    tasks.spawn(engine::run(
        work.clone(),
        subscription,
        lane,
        shared.drain.clone(),
    ));
    Started {
        broker: listener.broker,
        system: can.system,
        spec: listener.spec,
        work,
        resolving: Arc::default(),
    }
}

impl Running {
    /// A publisher on the broker in `BROKER_URL`.
    pub fn publisher(&self) -> Publisher {
        self.publishers[""].clone()
    }

    /// A publisher on a named broker; `None` where there is none of this name, or all its listeners are disabled.
    pub fn publisher_on(&self, broker: &str) -> Option<Publisher> {
        self.publishers.get(broker).cloned()
    }

    /// Resolves when every listener receives.
    ///
    /// # Errors
    /// A listener has ended.
    pub async fn ready(&self) -> Result<(), Error> {
        for listener in &self.overview.listeners {
            let mut states = listener.work.health.watch();
            let state = states
                .wait_for(|state| matches!(state, ListenerState::Ready | ListenerState::Stopped(_)))
                .await;
            if let Ok(ListenerState::Stopped(reason)) = state.as_deref() {
                let reason = reason.as_deref().unwrap_or("it was asked to");
                let text = format!("listener `{}` has stopped: {reason}", listener.spec.listener);
                return Err(Error::new(ErrorKind::Closed, text));
            }
        }
        Ok(())
    }

    /// What is listened to on the broker in `BROKER_URL`.
    #[cfg(feature = "testing")]
    pub(crate) fn topics(&self) -> Vec<String> {
        let here = |listener: &&Started| listener.broker.is_empty();
        let listeners = self.overview.listeners.iter().filter(here);
        let mut topics: Vec<_> = listeners
            .map(|listener| format!("`{}`", listener.spec.topic()))
            .collect();
        topics.sort();
        topics.dedup();
        topics
    }

    /// How every listener is and what it has done.
    pub fn status(&self) -> Vec<ListenerStatus> {
        self.overview.status()
    }

    /// The depths of every listener as its broker knows them, in the order of [`Running::status`].
    ///
    /// # Errors
    /// A broker did not answer.
    pub async fn depths(&self) -> Result<Vec<Status>, Error> {
        self.overview.depths(PATIENCE).await.into_iter().collect()
    }

    /// The dead letters of a listener, asked of its broker; `None` where there is no listener of this name.
    pub fn dead_letters(&self, listener: &str) -> Option<DeadLetters> {
        let started = self.overview.listener(listener)?;
        let Started { spec, resolving, .. } = started;
        let (topic, source) = (spec.dead_letter.clone()?, spec.topic().clone());
        let letters = self.overview.brokers[&started.broker].dead_letters(&topic, &source, &spec.group);
        let letters = DeadLetters::new(letters, [topic, source, spec.group.clone()]);
        Some(
            letters
                .of_broadcast(spec.sharing == Sharing::Broadcast)
                .one_at_a_time(resolving),
        )
    }

    /// Where the operations endpoint listens; `None` where it is off.
    #[cfg(feature = "ops")]
    pub fn ops_address(&self) -> Option<std::net::SocketAddr> {
        self.ops_address
    }

    /// Stops a listener from fetching; what was fetched is handled. False where there is no listener of this name.
    pub fn pause(&self, listener: &str) -> bool {
        self.overview.pause(listener, true)
    }

    /// Lets a paused listener fetch again. False where there is no listener of this name.
    pub fn resume(&self, listener: &str) -> bool {
        self.overview.pause(listener, false)
    }

    /// Resolves when a listener ends by itself, with the reason. Never, as long as all is well.
    pub async fn ended(&mut self) -> Error {
        loop {
            match self.tasks.join_next().await {
                // Without listeners there is nothing that could end: it goes on as a publisher.
                None => std::future::pending().await,
                Some(Ok(Ok(()))) if self.drain.is_cancelled() => {}
                Some(Ok(Ok(()))) => {
                    return Error::new(ErrorKind::Closed, "the broker was closed from this side");
                }
                Some(Ok(Err(error))) => return error,
                Some(Err(error)) => {
                    return Error::new(ErrorKind::Internal, "a listener's task failed").with_source(error);
                }
            }
        }
    }

    /// Ends handlers at once instead of at the drain's deadline.
    pub(super) fn cut_off(&self) -> CancellationToken {
        self.cut_off.clone()
    }

    /// Drains: stops fetching, lets running handlers finish up to the deadline, flushes acknowledgements and publishes,
    /// and disconnects. What was not finished is delivered again.
    ///
    /// # Errors
    /// Something could not be flushed or closed.
    pub async fn shutdown(mut self) -> Result<(), Error> {
        self.drain.cancel();
        let until = tokio::time::Instant::now() + self.deadline;
        let finished = async { while self.tasks.join_next().await.is_some() {} };
        tokio::pin!(finished);
        // Otherwise what is waited for is the broker.
        let is_handling = || {
            let listeners = &self.overview.listeners;
            listeners.iter().any(|listener| listener.work.settles.is_open())
        };
        if tokio::time::timeout_at(until, &mut finished).await.is_err() {
            let left = if is_handling() {
                "handlers that still run are cut off"
            } else {
                "what is not settled is left to the broker, which delivers it again"
            };
            tracing::warn!("the drain's deadline has passed: {left}");
            self.cut_off.cancel();
            if tokio::time::timeout(GRACE, &mut finished).await.is_err() && is_handling() {
                tracing::warn!("a handler does not yield: its message will be delivered again");
            }
        }
        let left = || {
            until
                .saturating_duration_since(tokio::time::Instant::now())
                .max(GRACE)
        };
        // All at once: a broker that does not answer takes no time from the others.
        let closing = self.publishers.iter().map(async |(name, publisher)| {
            let flushed = tokio::time::timeout(left(), publisher.flush()).await;
            let unconfirmed = "messages were still unconfirmed at the deadline";
            let flushed = flushed.map_err(|_| Error::new(ErrorKind::Unconfirmed, unconfirmed));
            let closed = self.overview.brokers[name].close(left()).await;
            flushed.and(closed)
        });
        let result = join_all(closing).await.into_iter().collect();
        self.stores.close().await;
        self.beside.shutdown().await;
        result
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.drain.is_cancelled() && !self.overview.listeners.is_empty() {
            tracing::error!(
                "the app was dropped while it ran: its listeners end without a drain, and what they held is delivered again; \
                 keep what `start` gives, and call `shutdown`"
            );
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("listeners", &self.status())
            .finish_non_exhaustive()
    }
}
