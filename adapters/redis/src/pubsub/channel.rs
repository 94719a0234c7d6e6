//! Keeps a channel subscribed and its socket drained.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use postrider_contract::{Backoff, Bytes, Error, ErrorKind};
use redis::Value;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, unavailable};
use crate::frame::Frame;
use crate::link::{COMMAND, Link};
use crate::pubsub::gaps::Gaps;
use crate::pubsub::queue::Queue;
use crate::subscription::reader::is_fatal;
use crate::subscription::table::{Part, Table};

/// A connection that carries nothing is asked whether it still does.
const PING: Duration = Duration::from_secs(5);

pub(crate) struct Channel {
    pub(crate) link: Arc<Link>,
    pub(crate) topic: Arc<str>,
    pub(crate) table: Arc<Table>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) gaps: Arc<Mutex<Gaps>>,
    pub(crate) stop: CancellationToken,
    pub(crate) closing: CancellationToken,
}

impl Channel {
    pub(crate) async fn run(self) {
        let mut failures = 0;
        loop {
            let outcome = tokio::select! {
                outcome = self.session(&mut failures) => outcome,
                () = self.stop.cancelled() => break,
                () = self.closing.cancelled() => break,
            };
            let error = self.judged(outcome).await;
            if is_fatal(&error) {
                self.table.fail(error);
                break;
            }
            self.table.down(Part::Channel, error);
            failures += 1;
            tokio::select! {
                () = tokio::time::sleep(Backoff::RECONNECT.wait(failures)) => {}
                () = self.stop.cancelled() => break,
                () = self.closing.cancelled() => break,
            }
        }
        self.queue.end();
    }

    async fn session(&self, failures: &mut u32) -> Error {
        let (mut pub_sub, host) = match self.link.pub_sub().await {
            Ok(made) => made,
            Err(error) => return error,
        };
        match timeout(COMMAND, pub_sub.subscribe(&*self.topic)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Failure::of(&error).error,
            Err(_) => return Failure::silent(COMMAND).error,
        }
        self.table.up(Part::Channel);
        *failures = 0;
        let (mut sink, mut stream) = pub_sub.split();
        let drain = async {
            while let Some(message) = stream.next().await {
                self.accept(message.get_payload_bytes());
            }
            unavailable(
                "the subscription's connection to Redis ended; what is published until it is made again is missed",
            )
        };
        let watch = async {
            loop {
                tokio::time::sleep(PING).await;
                match timeout(PING, sink.ping::<Value>()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Failure::of(&error).error,
                    Err(_) => return Failure::silent(PING).error,
                }
                // After a failover the others publish elsewhere.
                if let Err(error) = self.link.still_at(host).await {
                    return error;
                }
            }
        };
        tokio::select! {
            error = drain => error,
            error = watch => error,
        }
    }

    fn accept(&self, payload: &[u8]) {
        let identity = Frame::identity(payload);
        let now = Instant::now();
        let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(identity) = identity {
            gaps.came(identity, now);
        }
        if !self.queue.push(Bytes::copy_from_slice(payload)) {
            gaps.turned_away(identity, now);
        }
    }

    /// The client library calls every failure to log in a wrong password; the shared connection knows better.
    async fn judged(&self, error: Error) -> Error {
        match self.link.run(&redis::cmd("PING"), Duration::from_secs(1)).await {
            Err(failure) if failure.error.kind() == ErrorKind::Denied => failure.error,
            _ => error,
        }
    }
}
