//! From the queue into the group's inbox, each message once for all of its instances; and the account of what is missed.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postrider_contract::{Backoff, Bytes, Error, Event, Origin};
use redis::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fields;
use crate::frame::{Frame, Publisher};
use crate::keys;
use crate::link::{COMMAND, Link};
use crate::pubsub::gaps::{Gaps, Missing};
use crate::pubsub::queue::Queue;
use crate::scripts::Name;
use crate::subscription::broadcast::FOR_EVER;
use crate::subscription::entry::{Entry, EntryId, Stream};
use crate::subscription::reader::is_fatal;
use crate::subscription::source::Source;
use crate::subscription::table::{Part, Table};

const COUNT: usize = 256;
const BYTES: usize = 1_000_000;
/// Claims are bits in strings of so many.
const BLOCK: u64 = 32_768;
/// Blocks asked about in one call.
const BLOCKS: usize = 64;
/// How often the account is drawn up.
const ACCOUNT: Duration = Duration::from_millis(500);

pub(crate) struct Intake {
    pub(crate) link: Arc<Link>,
    pub(crate) source: Arc<Source>,
    pub(crate) table: Arc<Table>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) gaps: Arc<Mutex<Gaps>>,
    pub(crate) window: Duration,
    /// Every instance keeps its own: there is no inbox.
    pub(crate) broadcast: bool,
    pub(crate) closing: CancellationToken,
    pub(crate) warned: AtomicBool,
}

impl Intake {
    /// Until the queue has ended and is empty.
    pub(crate) async fn run(self) {
        let account = async {
            loop {
                tokio::time::sleep(ACCOUNT).await;
                self.account().await;
            }
        };
        let take = async {
            if self.broadcast {
                self.hand_over().await;
            } else {
                self.take_in().await;
            }
        };
        tokio::select! {
            () = account => {}
            () = take => {}
        }
    }

    async fn take_in(&self) {
        loop {
            let messages = self.queue.take(COUNT, BYTES).await;
            if messages.is_empty() {
                return;
            }
            let call = self.receive(&messages);
            let mut failures = 0;
            // Tried until it works: the claims make a second time harmless. Meanwhile the queue fills, and then overflows.
            while let Err(failure) = self.link.run(&call, COMMAND).await {
                if is_fatal(&failure.error) {
                    self.table.fail(failure.error);
                    return;
                }
                failures += 1;
                if self.closing.is_cancelled() && failures > 3 {
                    tracing::error!(topic = %self.source.topic, lost = messages.len(), error = %failure.error,
                        "received messages could not be kept before closing");
                    return;
                }
                self.table.down(Part::Intake, failure.error);
                tokio::time::sleep(Backoff::RECONNECT.wait(failures)).await;
            }
            if failures > 0 {
                self.table.up(Part::Intake);
            }
        }
    }

    fn receive(&self, messages: &[Bytes]) -> redis::Cmd {
        let mut call = self.link.script(Name::Receive, &[&self.source.inbox]);
        call.arg(keys::seen(&self.source.topic, &self.source.group))
            .arg(self.window.as_millis().max(1) as u64);
        for message in messages {
            match Frame::identity(message) {
                Some((publisher, sequence)) => {
                    call.arg(hexadecimal(&publisher))
                        .arg(sequence / BLOCK)
                        .arg(sequence % BLOCK);
                }
                None => {
                    self.warn_of_duplicates();
                    call.arg("").arg(0).arg(0);
                }
            }
            let field = if Frame::is_frame(message) {
                fields::FRAME
            } else {
                fields::PAYLOAD
            };
            call.arg(field).arg(&message[..]);
        }
        call
    }

    fn warn_of_duplicates(&self) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                topic = %self.source.topic,
                "a message on this channel has no frame, so nothing tells it apart: every instance of a group handles it"
            );
        }
    }

    /// Broadcast: straight to the table, as far as there is room.
    async fn hand_over(&self) {
        let mut number = 0;
        loop {
            let room = self.table.room();
            if room == 0 {
                tokio::select! {
                    () = self.table.freed.notified() => {}
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    () = self.closing.cancelled() => return,
                }
                continue;
            }
            let messages = self.queue.take(room, BYTES).await;
            if messages.is_empty() {
                return;
            }
            let entry = |message: Bytes| {
                number += 1;
                let message = match Frame::decode(&message) {
                    Some(frame) => frame.message,
                    None => postrider_contract::Message::new(message),
                };
                Entry {
                    stream: Stream::Topic,
                    id: EntryId {
                        time: number,
                        sequence: 0,
                    },
                    delivered: 1,
                    released: 0,
                    orphaned: false,
                    origin: Origin::Topic,
                    message,
                }
            };
            let entries = messages.into_iter().map(entry).collect();
            self.table
                .add(self.table.epoch(), entries, Instant::now() + FOR_EVER);
        }
    }

    /// Tells what has been missed for certain.
    async fn account(&self) {
        let now = Instant::now();
        let (missing, mut lost) = self
            .gaps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .overdue(now);
        if self.broadcast {
            lost = missing
                .iter()
                .fold(lost, |lost, missing| lost.saturating_add(missing.count()));
        } else if !missing.is_empty() {
            // Another instance may have received it.
            match self.unclaimed(&missing).await {
                Ok(unclaimed) => lost = lost.saturating_add(unclaimed),
                Err(error) => {
                    tracing::debug!(%error, "what is missing cannot be asked after yet");
                    self.gaps
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .put_back(missing);
                }
            }
        }
        if lost > 0 {
            tracing::warn!(topic = %self.source.topic, group = %self.source.group, lost, "messages were published and not received");
            self.table.tell(Event::Gap { lost: Some(lost) });
        }
    }

    async fn unclaimed(&self, missing: &[Missing]) -> Result<u64, Error> {
        let mut lost: u64 = 0;
        let mut blocks = Vec::new();
        for missing in missing {
            let all = missing.last / BLOCK - missing.first / BLOCK + 1;
            if all > 4_096 {
                // More than a hundred million: nobody has claimed those.
                lost = lost.saturating_add(missing.count());
                continue;
            }
            for block in missing.first / BLOCK..=missing.last / BLOCK {
                let first = missing.first.max(block * BLOCK) % BLOCK;
                let last = missing.last.min(block * BLOCK + (BLOCK - 1)) % BLOCK;
                blocks.push((missing.publisher, block, first, last));
            }
        }
        for some in blocks.chunks(BLOCKS) {
            let mut call = self.link.script(Name::Unclaimed, &[]);
            call.arg(keys::seen(&self.source.topic, &self.source.group));
            for (publisher, block, first, last) in some {
                call.arg(hexadecimal(publisher)).arg(block).arg(first).arg(last);
            }
            let answer = self
                .link
                .run(&call, COMMAND)
                .await
                .map_err(|failure| failure.error)?;
            if let Value::Int(count) = answer {
                lost = lost.saturating_add(u64::try_from(count).unwrap_or(0));
            }
        }
        Ok(lost)
    }
}

fn hexadecimal(publisher: &Publisher) -> String {
    publisher
        .iter()
        .fold(String::with_capacity(32), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
