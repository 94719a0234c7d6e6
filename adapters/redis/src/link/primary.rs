//! Of several hosts, the one that takes writes. Each server has its own channels, so whoever subscribes must be where the
//! others publish; and a primary that becomes a replica goes on taking what is published, and keeps it to itself.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use postrider_contract::{Error, ErrorKind};
use redis::Value;
use redis::aio::PubSub;
use tokio::time::{Instant, timeout};

use crate::failure::unavailable;
use crate::link::{COMMAND, Dedicated, Link, Shared};

/// How long one of several hosts is tried before the next one is tried as well.
const HEAD_START: Duration = Duration::from_millis(500);

impl Link {
    /// Another connection to wherever this one leads, for commands that hold up what comes behind them.
    pub(crate) fn another(self: &Arc<Self>) -> Self {
        Self {
            other: Some(Arc::clone(self)),
            ..Self::new(Arc::clone(&self.settings), &self.name)
        }
    }

    /// A new connection to where commands are to go.
    pub(super) async fn connect(&self, deadline: Instant) -> Result<Dedicated, Error> {
        let Some(other) = &self.other else {
            return self.dedicated().await;
        };
        let Shared { host, generation, .. } = Box::pin(other.shared(deadline)).await?;
        let opened = self.open(host, true).await;
        if opened.is_err() && self.has_choice() {
            // It is gone, or takes no writes any more: the other one may not have noticed.
            other.lost(generation);
        }
        opened
    }

    /// A new connection to the first host that takes writes, with the scripts loaded.
    ///
    /// One that says nothing is not waited for alone: whoever asks has less time than its connection may take.
    async fn dedicated(&self) -> Result<Dedicated, Error> {
        let hosts = self.settings.hosts.len();
        let mut opening = FuturesUnordered::new();
        let (mut next, mut last) = (0, None::<Error>);
        loop {
            if next < hosts {
                opening.push(self.open(next, true));
                next += 1;
            }
            let opened = if next < hosts {
                match timeout(HEAD_START, opening.next()).await {
                    Ok(opened) => opened,
                    Err(_) => continue,
                }
            } else {
                opening.next().await
            };
            match opened {
                Some(Ok(dedicated)) => return Ok(dedicated),
                Some(Err(error)) => {
                    // One that is refused by some, and by others not heard of, is not refused by the primary for certain.
                    let is_less = error.kind() == ErrorKind::Denied && last.is_some();
                    last = last.filter(|_| is_less).or(Some(error));
                }
                None => return Err(last.unwrap_or_else(|| unavailable("the Redis URL names no host"))),
            }
        }
    }

    /// Whether there is a choice. A single host is taken as it is.
    pub(crate) fn has_choice(&self) -> bool {
        self.settings.hosts.len() > 1
    }

    /// The host that commands go to.
    async fn host(&self) -> Result<usize, Error> {
        if !self.has_choice() {
            return Ok(0);
        }
        let until = Instant::now() + self.settings.connect_timeout;
        Ok(self.shared(until).await?.host)
    }

    /// A connection of its own to the host that commands go to: what is read there is acknowledged there.
    pub(crate) async fn beside(&self) -> Result<Dedicated, Error> {
        let host = self.host().await?;
        let opened = self.open(host, false).await;
        if opened.is_err() {
            // Whoever only receives sends nothing that would be refused.
            let _ = self.still_at(host).await;
        }
        opened
    }

    /// An error where commands go to another host by now.
    pub(crate) fn still_beside(&self, host: usize) -> Result<(), Error> {
        match self.live() {
            Some(shared) if shared.host != host => Err(moved()),
            _ => Ok(()),
        }
    }

    /// A connection for subscribing to channels, and to which host: the one that commands go to.
    pub(crate) async fn pub_sub(&self) -> Result<(PubSub, usize), Error> {
        let within = self.settings.connect_timeout;
        let at = self.host().await?;
        let (host, port) = &self.settings.hosts[at];
        let client = self.client(host, *port, true)?;
        match timeout(within, client.get_async_pubsub()).await {
            Ok(Ok(pub_sub)) => Ok((pub_sub, at)),
            Ok(Err(error)) => Err(self.refused(host, *port, &error)),
            Err(_) => Err(unavailable(format!("Redis at {host}:{port} does not answer"))),
        }
    }

    /// An error where commands do not go to this host any more, or it takes no writes.
    pub(crate) async fn still_at(&self, host: usize) -> Result<(), Error> {
        if !self.has_choice() {
            return Ok(());
        }
        let until = Instant::now() + COMMAND;
        let shared = self.shared(until).await?;
        if shared.host != host {
            return Err(moved());
        }
        let generation = shared.generation;
        let mut ask = redis::pipe();
        ask.cmd("ROLE");
        let answers = self.pipeline_on(shared, &ask, until).await;
        match answers.map_err(|failure| failure.error)?.first() {
            Some(role) if self.has_left(generation, role) => Err(demoted()),
            _ => Ok(()),
        }
    }

    /// Leaves this connection if its server answers `ROLE` like a replica.
    pub(crate) fn has_left(&self, generation: u64, role: &Value) -> bool {
        let left = is_replica(role);
        if left {
            self.lost(generation);
        }
        left
    }
}

fn moved() -> Error {
    unavailable("another Redis is the primary now")
}

/// What a replica has taken for its channels is as good as not sent.
pub(crate) fn demoted() -> Error {
    unavailable("this Redis has become a replica: another is the primary now")
}

/// Whether this answers `ROLE` on a replica.
pub(super) fn is_replica(role: &Value) -> bool {
    match role {
        Value::Array(parts) => matches!(parts.first(), Some(Value::BulkString(word)) if word == b"slave"),
        _ => false,
    }
}
