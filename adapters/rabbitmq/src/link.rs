//! One connection that is kept: opened when it is needed, opened again with backoff when it was lost.
//!
//! There are two for each broker: RabbitMQ stops reading from a connection that publishes while the broker is short of
//! memory or disk, so acknowledgements travel on another than publishes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{Connection, ConnectionProperties};
use postrider_contract::{Backoff, Error, ErrorKind};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::fault;
use crate::options::Settings;
use crate::tls;

/// A connection that lived this long was a good one: the next loss starts with a short wait again.
const GOOD: Duration = Duration::from_secs(5);
/// So often in a row must credentials be refused before a connection that once worked is given up: a broker that is
/// starting may refuse for a moment.
const REFUSALS: u32 = 3;

/// Numbers connections, from 1.
static NUMBER: AtomicU32 = AtomicU32::new(1);

/// A live connection and its number in this process.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) connection: Arc<Connection>,
    pub(crate) number: u32,
}

/// Keeps one connection.
pub(crate) struct Link {
    settings: Arc<Settings>,
    purpose: &'static str,
    backoff: Backoff,
    state: Mutex<State>,
    closed: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    live: Option<Live>,
    since: Option<Instant>,
    number: u32,
    failures: u32,
    refusals: u32,
    /// Set once trying again is hopeless.
    over: Option<Error>,
}

impl Link {
    pub(crate) fn new(settings: Arc<Settings>, purpose: &'static str) -> Arc<Self> {
        Self::paced(settings, purpose, Backoff::RECONNECT)
    }

    /// One that is opened again at another pace.
    pub(crate) fn paced(settings: Arc<Settings>, purpose: &'static str, backoff: Backoff) -> Arc<Self> {
        Arc::new(Self {
            settings,
            purpose,
            backoff,
            state: Mutex::default(),
            closed: watch::Sender::new(false),
        })
    }

    /// Connects for the first time: tries until `connect_timeout`, but what trying again cannot mend fails at once.
    pub(crate) async fn first(&self) -> Result<Live, Error> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        let mut last = None;
        loop {
            match tokio::time::timeout_at(deadline, self.get()).await {
                Ok(Ok(live)) => return Ok(live),
                Ok(Err(error)) if error.kind() != ErrorKind::Unavailable => return Err(error),
                Ok(Err(error)) => last = Some(error),
                Err(_) => {
                    let waited = self.settings.connect_timeout;
                    return Err(last.unwrap_or_else(|| {
                        Error::new(
                            ErrorKind::Unavailable,
                            format!("{} did not answer within {waited:?}", self.settings.shown),
                        )
                    }));
                }
            }
        }
    }

    /// The live connection; where there is none, waits its backoff and makes *one* attempt.
    pub(crate) async fn get(&self) -> Result<Live, Error> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            _ = closed.wait_for(|closed| *closed) => Err(fault::closed()),
            live = self.get_or_connect() => live,
        }
    }

    async fn get_or_connect(&self) -> Result<Live, Error> {
        let mut state = self.state.lock().await;
        if let Some(live) = &state.live
            && live.connection.status().connected()
        {
            return Ok(live.clone());
        }
        if let Some(error) = &state.over {
            return Err(error.clone());
        }
        if state.live.take().is_some() {
            let good = state.since.is_some_and(|since| since.elapsed() >= GOOD);
            state.failures = if good { 0 } else { state.failures + 1 };
        }
        if state.failures > 0 {
            sleep_until(Instant::now() + self.backoff.wait(state.failures)).await;
        }
        match self.attempt().await {
            Ok(connection) => {
                state.number = NUMBER.fetch_add(1, Ordering::Relaxed);
                state.since = Some(Instant::now());
                state.refusals = 0;
                let live = Live {
                    connection: Arc::new(connection),
                    number: state.number,
                };
                state.live = Some(live.clone());
                Ok(live)
            }
            Err(error) => {
                state.failures += 1;
                Err(state.judge(error))
            }
        }
    }

    /// Ends every wait, and disconnects.
    pub(crate) async fn close(&self) {
        self.closed.send_replace(true);
        let live = self.state.lock().await.live.take();
        // Blocked, the client library writes nothing more, not even this; it does when the broker reads again.
        if let Some(live) = live.filter(|live| !live.connection.status().blocked()) {
            let _ = live.connection.close(200, "OK".into()).await;
        }
    }

    async fn attempt(&self) -> Result<Connection, Error> {
        let mut last = None;
        for (host, port) in &self.settings.hosts {
            let connecting = self.connect(host, *port);
            let error = match timeout(self.settings.connect_timeout, connecting).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error,
                Err(_) => Error::new(
                    ErrorKind::Unavailable,
                    format!("{host}:{port} does not answer as a RabbitMQ broker"),
                ),
            };
            if error.kind() == ErrorKind::Config {
                return Err(error);
            }
            last = Some(error);
        }
        Err(last.unwrap_or_else(|| Error::new(ErrorKind::Config, "the broker URL names no host")))
    }

    async fn connect(&self, host: &str, port: u16) -> Result<Connection, Error> {
        let settings = &self.settings;
        let uri = AMQPUri {
            scheme: match settings.tls {
                Some(_) => AMQPScheme::AMQPS,
                None => AMQPScheme::AMQP,
            },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: settings.user.clone(),
                    password: settings.password.expose().to_owned(),
                },
                host: host.to_owned(),
                port,
            },
            vhost: settings.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: Some(settings.heartbeat),
                auth_mechanism: settings.external.then_some(SASLMechanism::External),
                ..AMQPQueryString::default()
            },
        };
        let tls = match &settings.tls {
            Some(files) => tls::config(files)?,
            None => OwnedTLSConfig::default(),
        };
        let runtime = lapin::runtime::default_runtime().map_err(|error| fault::error("starting", &error))?;
        let name = format!(
            "{} {} ({})",
            settings.client.application, settings.client.instance, self.purpose
        );
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        Connection::connect_uri_with_config(uri, properties, tls, runtime)
            .await
            .map_err(|error| fault::error(&format!("connecting to {}", settings.shown), &error))
    }
}

impl State {
    /// Before any connection worked, refused credentials are wrong credentials. Afterwards they must be refused again.
    fn judge(&mut self, error: Error) -> Error {
        if error.kind() != ErrorKind::Denied {
            self.refusals = 0;
            return error;
        }
        self.refusals += 1;
        if self.number == 0 || self.refusals >= REFUSALS {
            if self.number > 0 {
                self.over = Some(error.clone());
            }
            return error;
        }
        Error::new(ErrorKind::Unavailable, error.to_string())
    }
}
