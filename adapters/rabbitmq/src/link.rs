//! One connection that is kept: opened when it is needed, opened again with backoff when it was lost.
//!
//! There are two for each broker: RabbitMQ stops reading from a connection that publishes while the broker is short of
//! memory or disk, so acknowledgements travel on another than publishes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{Connection, ConnectionProperties};
use postrider_contract::{Backoff, Error, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::fault;
use crate::options::Settings;
use crate::tls;

/// A connection that lived this long was a good one: the next loss starts with a short wait again.
const GOOD: Duration = Duration::from_secs(5);
/// So often in a row must credentials be refused before a connection that once worked is told as denied: a broker that
/// is starting may refuse for a moment.
const REFUSALS: u32 = 3;
/// So long refused credentials are told without asking again.
const REFUSED: Duration = Duration::from_secs(10);

/// A live connection.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) connection: Arc<Connection>,
    /// What all groups share was declared since it was opened.
    pub(crate) declared: Arc<AtomicBool>,
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
    /// A connection worked before.
    worked: bool,
    failures: u32,
    refusals: u32,
    /// Hosts, by their places, from which an attempt got no answer.
    silent: HashSet<usize>,
    /// That credentials are refused, and since when. Who receives ends with it; who publishes may be given access again.
    refused: Option<(Error, Instant)>,
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
        if let Some((error, since)) = &state.refused
            && since.elapsed() < REFUSED
        {
            return Err(error.clone());
        }
        if state.live.take().is_some() {
            let good = state.since.is_some_and(|since| since.elapsed() >= GOOD);
            state.failures = if good { 0 } else { state.failures + 1 };
        }
        if state.failures > 0 {
            sleep_until(Instant::now() + self.backoff.wait(state.failures)).await;
        }
        match self.attempt(&mut state.silent).await {
            Ok(connection) => {
                state.worked = true;
                state.since = Some(Instant::now());
                state.refusals = 0;
                let live = Live {
                    connection: Arc::new(connection),
                    declared: Arc::default(),
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

    async fn attempt(&self, silent: &mut HashSet<usize>) -> Result<Connection, Error> {
        let mut last = None;
        let hosts = &self.settings.hosts;
        let deadline = Instant::now() + self.settings.connect_timeout;
        for (place, (host, port)) in hosts.iter().enumerate() {
            // What is left, shared with those that come after it.
            let patience = (deadline - Instant::now()) / (hosts.len() - place) as u32;
            // Until it answers: this may be dropped before.
            let was_silent = !silent.insert(place);
            let connecting = async {
                if was_silent {
                    speaks(host, *port).await;
                }
                self.connect(host, *port).await
            };
            let answered = timeout(patience, connecting).await;
            if answered.is_ok() {
                silent.remove(&place);
            }
            let error = match answered {
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

/// Waits until a peer that said nothing before does so, or hangs up. The client library leaves a thread and a socket behind
/// with each attempt that is given up (lapin 4.12.3), for as long as the peer is silent.
async fn speaks(host: &str, port: u16) {
    let asked = async {
        let mut socket = TcpStream::connect((host, port)).await?;
        socket.write_all(b"AMQP\x00\x00\x09\x01").await?;
        socket.read(&mut [0]).await
    };
    // An error is an answer, too: the attempt itself tells it.
    let _ = asked.await;
}

impl State {
    /// Before any connection worked, refused credentials are wrong credentials. Afterwards they must be refused again.
    fn judge(&mut self, error: Error) -> Error {
        if error.kind() != ErrorKind::Denied {
            self.refusals = 0;
            return error;
        }
        self.refusals += 1;
        if !self.worked || self.refusals >= REFUSALS {
            if self.worked {
                self.refused = Some((error.clone(), Instant::now()));
            }
            return error;
        }
        Error::new(ErrorKind::Unavailable, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use postrider_contract::Client;

    use super::*;

    /// Something that takes connections and says nothing.
    #[tokio::test]
    async fn attempts_at_a_silent_peer_leave_nothing_behind() {
        const ATTEMPTS: usize = 4;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (took, mut taken) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                took.send(socket).unwrap();
            }
        });
        let url = format!("amqp://127.0.0.1:{port}?connect_timeout=300ms");
        let settings = Settings::read(&url.parse().unwrap(), client()).unwrap();
        let link = Link::paced(settings, "test", Backoff::new(Duration::ZERO, Duration::ZERO));
        for _ in 0..ATTEMPTS {
            let error = link.get().await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
        let mut sockets = Vec::new();
        while sockets.len() < ATTEMPTS {
            sockets.push(taken.recv().await.unwrap());
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let mut held = 0;
            for socket in &sockets {
                held += usize::from(is_held(socket));
            }
            if held <= 1 {
                break;
            }
            assert!(Instant::now() < deadline, "{held} connections are held");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The first host takes connections and says nothing: the next one is asked in time.
    #[tokio::test]
    async fn a_silent_host_leaves_time_for_the_next() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let next = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ports = [&silent, &next].map(|listener| listener.local_addr().unwrap().port());
        let url = format!(
            "amqp://127.0.0.1:{},127.0.0.1:{}?connect_timeout=300ms",
            ports[0], ports[1]
        );
        let link = Link::new(Settings::read(&url.parse().unwrap(), client()).unwrap(), "test");
        tokio::select! {
            _ = link.first() => panic!("the next host was not asked"),
            _ = next.accept() => {}
        }
    }

    fn client() -> Client {
        Client {
            application: "tests".into(),
            instance: "tests-1".into(),
        }
    }

    /// Whether the other side has not hung up.
    fn is_held(socket: &TcpStream) -> bool {
        let mut buffer = [0; 64];
        loop {
            match socket.try_read(&mut buffer) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
    }
}
