//! Connections: one that all commands share, and dedicated ones for what blocks. Each is made again when it breaks.

pub(crate) mod primary;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postrider_contract::{Backoff, Error, ErrorKind};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline,
    ProtocolVersion, RedisConnectionInfo, ServerError, Value,
};
use tokio::time::{Instant, timeout};

use crate::failure::{Failure, code, from_server, unavailable};
use crate::link::primary::is_replica;
use crate::scripts::{Name, Scripts};
use crate::settings::Settings;
use crate::tls;

/// How long the short commands may take: acknowledgements, scripts, questions.
pub(crate) const COMMAND: Duration = Duration::from_secs(5);

/// A connection of its own, with what the server calls it.
pub(crate) struct Dedicated {
    pub(crate) connection: MultiplexedConnection,
    /// For `CLIENT UNBLOCK`; unknown where the server does not tell.
    pub(crate) id: Option<i64>,
    /// Which of the hosts.
    pub(crate) host: usize,
}

/// The connection that all commands share.
pub(crate) struct Link {
    settings: Arc<Settings>,
    /// How the server shows this client.
    name: String,
    scripts: Scripts,
    live: Mutex<Live>,
    /// Counts answers.
    answered: AtomicU64,
    /// One attempt to connect at a time.
    connecting: tokio::sync::Mutex<()>,
    /// It stays on the host of this one.
    other: Option<Arc<Link>>,
}

#[derive(Default)]
struct Live {
    connection: Option<MultiplexedConnection>,
    host: usize,
    /// Counts connections, so that a late failure does not tear down the next one.
    generation: u64,
    failures: u32,
    closed: bool,
}

/// A handle on the shared connection.
#[derive(Clone)]
pub(crate) struct Shared {
    connection: MultiplexedConnection,
    pub(crate) generation: u64,
    /// Which of the hosts.
    host: usize,
}

/// This side was closed.
pub(crate) fn closed() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the connection to Redis was closed from this side",
    )
}

impl Link {
    pub(crate) fn new(settings: Arc<Settings>, name: &str) -> Self {
        Self {
            settings,
            // The server takes no blanks or line breaks here.
            name: name
                .chars()
                .map(|c| if c.is_ascii_graphic() { c } else { '-' })
                .collect(),
            scripts: Scripts::new(),
            live: Mutex::default(),
            answered: AtomicU64::new(0),
            connecting: tokio::sync::Mutex::default(),
            other: None,
        }
    }

    /// A call of a script, without arguments yet.
    pub(crate) fn script(&self, name: Name, keys: &[&str]) -> Cmd {
        self.scripts.call(name, keys)
    }

    /// The same for one key that need not be text.
    pub(crate) fn script_of(&self, name: Name, key: &[u8]) -> Cmd {
        self.scripts.call(name, &[key])
    }

    /// Runs one command; an error reply is an error.
    pub(crate) async fn run(&self, command: &Cmd, within: Duration) -> Result<Value, Failure> {
        let deadline = Instant::now() + within;
        let mut reloaded = false;
        loop {
            let Shared {
                mut connection,
                generation,
                ..
            } = self.shared(deadline).await.map_err(Failure::before)?;
            let answer = timeout(left(deadline), connection.send_packed_command(command)).await;
            if let Ok(Ok(_)) = answer {
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            let failure = match answer {
                Ok(Ok(Value::ServerError(error))) if error.code() == "NOSCRIPT" && !reloaded => {
                    // Somebody flushed the scripts. It did not run, so it may run again.
                    reloaded = true;
                    self.load(&mut connection, deadline).await?;
                    continue;
                }
                Ok(Ok(Value::ServerError(error))) => {
                    self.demoted(&error, generation);
                    return Err(Failure {
                        error: from_server(&error),
                        sent: false,
                        broken: false,
                    });
                }
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => Failure::of(&error),
                Err(_) => Failure::silent(within),
            };
            if failure.broken {
                self.lost(generation);
            }
            return Err(failure);
        }
    }

    /// Runs commands in one round trip; an answer for each, error replies among them.
    pub(crate) async fn pipeline(
        &self,
        commands: &Pipeline,
        within: Duration,
    ) -> Result<Vec<Value>, Failure> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + within;
        let shared = self.shared(deadline).await.map_err(Failure::before)?;
        self.pipeline_on(shared, commands, deadline).await
    }

    /// The same on a connection that was taken before, so that several follow one another on it.
    pub(crate) async fn pipeline_on(
        &self,
        shared: Shared,
        commands: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, Failure> {
        let Shared {
            mut connection,
            generation,
            ..
        } = shared;
        let within = left(deadline);
        let answer = connection.send_packed_commands(commands, 0, commands.len());
        let failure = match timeout(within, answer).await {
            Ok(Ok(values)) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                for value in &values {
                    if let Value::ServerError(error) = value {
                        self.demoted(error, generation);
                    }
                }
                return Ok(values);
            }
            Ok(Err(error)) => Failure::of(&error),
            Err(_) => Failure::silent(within),
        };
        if failure.broken {
            self.lost(generation);
        }
        Err(failure)
    }

    /// Asks whether the server is there, and leaves the connection where nothing at all is answered within this time: what was
    /// sent before may take longer, and is answered first.
    pub(crate) async fn check(&self, within: Duration) {
        let connected = self.shared(Instant::now() + self.settings.connect_timeout);
        let Ok(Shared {
            mut connection,
            generation,
            ..
        }) = connected.await
        else {
            return;
        };
        let before = self.answered.load(Ordering::Relaxed);
        let ping = redis::cmd("PING");
        let broken = match timeout(within, connection.send_packed_command(&ping)).await {
            Ok(answer) => answer.is_err_and(|error| Failure::of(&error).broken),
            Err(_) => self.answered.load(Ordering::Relaxed) == before,
        };
        if broken {
            self.lost(generation);
        }
    }

    /// The shared connection, made if need be; tried again with backoff until the deadline.
    pub(crate) async fn shared(&self, deadline: Instant) -> Result<Shared, Error> {
        if let Some(live) = self.live() {
            return Ok(live);
        }
        let Ok(_one) = tokio::time::timeout_at(deadline, self.connecting.lock()).await else {
            return Err(self.unreachable(None));
        };
        loop {
            // Another may have made it while this one waited.
            if let Some(live) = self.live() {
                return Ok(live);
            }
            if self.live.lock().unwrap_or_else(PoisonError::into_inner).closed {
                return Err(closed());
            }
            let error = match timeout(left(deadline), self.connect(deadline)).await {
                Ok(Ok(Dedicated { connection, host, .. })) => {
                    let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
                    live.generation += 1;
                    live.failures = 0;
                    live.connection = Some(connection.clone());
                    live.host = host;
                    let generation = live.generation;
                    return Ok(Shared {
                        connection,
                        generation,
                        host,
                    });
                }
                Ok(Err(error)) if !error.is_retryable() => return Err(error),
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            let wait = {
                let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
                live.failures = live.failures.saturating_add(1);
                Backoff::RECONNECT.wait(live.failures).min(Duration::from_secs(2))
            };
            if Instant::now() + wait >= deadline {
                return Err(self.unreachable(error));
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn live(&self) -> Option<Shared> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = Shared {
            connection: live.connection.clone()?,
            generation: live.generation,
            host: live.host,
        };
        drop(live);
        match &self.other {
            Some(other) if other.still_beside(shared.host).is_err() => None,
            _ => Some(shared),
        }
    }

    /// Counts how often it was connected.
    pub(crate) fn generation(&self) -> u64 {
        self.live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .generation
    }

    fn lost(&self, generation: u64) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.generation == generation {
            live.connection = None;
        }
    }

    /// A primary that became a replica says so; the next connection may find the new primary.
    fn demoted(&self, error: &ServerError, generation: u64) {
        if code(error.code(), error.details().unwrap_or_default()) == "READONLY" {
            self.lost(generation);
        }
    }

    /// Drops the shared connection for good.
    pub(crate) fn disconnect(&self) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.closed = true;
        live.connection = None;
    }

    fn unreachable(&self, why: Option<Error>) -> Error {
        let error = unavailable(format!("Redis at {} cannot be reached", self.settings.shown));
        match why {
            Some(why) => error.with_source(why),
            None => error,
        }
    }

    /// A new connection to this host, if it takes writes. `scripts`: with the scripts loaded.
    async fn open(&self, at: usize, scripts: bool) -> Result<Dedicated, Error> {
        let (host, port) = (self.settings.hosts[at].0.as_str(), self.settings.hosts[at].1);
        let client = self.client(host, port, false)?;
        let config = AsyncConnectionConfig::new()
            // Ours are around every call: these would also end a blocking read that has just been served.
            .set_response_timeout(None)
            .set_connection_timeout(Some(self.settings.connect_timeout));
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| self.refused(host, port, &error))?;
        // Not by the client library, which calls every failure here a wrong password.
        let mut hello = redis::pipe();
        if let Some(password) = &self.settings.password {
            let auth = hello.cmd("AUTH");
            if let Some(user) = &self.settings.user {
                auth.arg(user);
            }
            auth.arg(password.expose());
        }
        if self.settings.database != 0 {
            hello.cmd("SELECT").arg(self.settings.database);
        }
        let needed = hello.len();
        hello.cmd("PING");
        hello.cmd("CLIENT").arg("SETNAME").arg(&self.name);
        hello.cmd("CLIENT").arg("ID");
        if self.has_choice() {
            hello.cmd("ROLE");
        }
        let answer = timeout(
            self.settings.connect_timeout,
            connection.send_packed_commands(&hello, 0, hello.len()),
        );
        let answers = answer
            .await
            .map_err(|_| {
                unavailable(format!(
                    "Redis at {host}:{port} takes connections and does not answer"
                ))
            })?
            .map_err(|error| self.refused(host, port, &error))?;
        for answer in &answers[..=needed.min(answers.len().saturating_sub(1))] {
            if let Value::ServerError(error) = answer {
                return Err(from_server(error));
            }
        }
        if answers.get(needed + 3).is_some_and(is_replica) {
            return Err(unavailable(format!("Redis at {host}:{port} is a replica")));
        }
        if scripts {
            let deadline = Instant::now() + self.settings.connect_timeout;
            self.load(&mut connection, deadline)
                .await
                .map_err(|failure| failure.error)?;
        }
        let id = match answers.get(needed + 2) {
            Some(Value::Int(id)) => Some(*id),
            _ => None,
        };
        Ok(Dedicated {
            connection,
            id,
            host: at,
        })
    }

    async fn load(&self, connection: &mut MultiplexedConnection, deadline: Instant) -> Result<(), Failure> {
        let mut load = redis::pipe();
        for command in Scripts::load() {
            load.add_command(command);
        }
        let answers = timeout(
            left(deadline),
            connection.send_packed_commands(&load, 0, load.len()),
        )
        .await
        .map_err(|_| Failure::silent(self.settings.connect_timeout))?
        .map_err(|error| Failure::of(&error))?;
        for answer in answers {
            if let Value::ServerError(error) = answer {
                return Err(Failure::before(from_server(&error)));
            }
        }
        Ok(())
    }

    fn client(&self, host: &str, port: u16, authenticate: bool) -> Result<Client, Error> {
        let mut redis = RedisConnectionInfo::default()
            // The older protocol is understood by every server and proxy, and its replies are all that is needed.
            .set_protocol(ProtocolVersion::RESP2)
            .set_lib_name("postrider", env!("CARGO_PKG_VERSION"));
        if authenticate {
            if let Some(user) = &self.settings.user {
                redis = redis.set_username(user);
            }
            if let Some(password) = &self.settings.password {
                redis = redis.set_password(password.expose());
            }
        }
        let address = match &self.settings.tls {
            None => ConnectionAddr::Tcp(host.to_owned(), port),
            Some(_) => ConnectionAddr::TcpTls {
                host: host.to_owned(),
                port,
                insecure: false,
                tls_params: None,
            },
        };
        let info: ConnectionInfo = address
            .into_connection_info()
            .map_err(|error| unavailable(format!("Redis at {host}:{port}: {error}")))?;
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        tls::client(
            info.set_redis_settings(redis).set_tcp_settings(tcp),
            self.settings.tls.as_ref(),
        )
    }

    fn refused(&self, host: &str, port: u16, error: &redis::RedisError) -> Error {
        if self.settings.tls.is_some()
            && let Some(error) = tls::refused(host, port, error)
        {
            return error;
        }
        unavailable(format!("Redis at {host}:{port}: {}", Failure::of(error).error))
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
