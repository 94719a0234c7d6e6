//! Broadcast on Streams: reads the topic without a group, from where it stands when the subscription opens.

use std::sync::Arc;
use std::time::Duration;

use postrider_contract::{Backoff, Error, Event};
use redis::Value;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, checked};
use crate::link::{Dedicated, Link};
use crate::subscription::entry::{Entry, EntryId, Stream};
use crate::subscription::page::Pages;
use crate::subscription::reader::is_fatal;
use crate::subscription::stand::Stand;
use crate::subscription::table::{Part, Table};

const BLOCK: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(5);
/// Nothing is leased here.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

pub(crate) struct BroadcastReader {
    pub(crate) link: Arc<Link>,
    pub(crate) table: Arc<Table>,
    pub(crate) key: String,
    /// Replay and purge delete from it: a deleted entry is no loss.
    pub(crate) holds_dead_letters: bool,
    pub(crate) pages: Pages,
    pub(crate) stop: CancellationToken,
    pub(crate) closing: CancellationToken,
}

/// Up to where it has read.
struct Position {
    last: EntryId,
    /// How many had been added by then, where the server counts.
    added: Option<u64>,
}

impl Position {
    fn at_end(stand: &Stand) -> Self {
        Self {
            last: stand.end,
            added: stand.before_rest(stand.end),
        }
    }
}

impl BroadcastReader {
    pub(crate) async fn run(self) {
        let (mut failures, mut position) = (0, None);
        loop {
            let outcome = tokio::select! {
                outcome = self.session(&mut position, &mut failures) => outcome,
                () = self.stop.cancelled() => return,
                () = self.closing.cancelled() => return,
            };
            let Err(error) = outcome else { return };
            if is_fatal(&error) {
                self.table.fail(error);
                return;
            }
            self.table.down(Part::Reader, error);
            failures += 1;
            tokio::select! {
                () = tokio::time::sleep(Backoff::RECONNECT.wait(failures)) => {}
                () = self.stop.cancelled() => return,
                () = self.closing.cancelled() => return,
            }
        }
    }

    async fn session(&self, position: &mut Option<Position>, failures: &mut u32) -> Result<(), Error> {
        let Dedicated {
            mut connection, host, ..
        } = self.link.beside().await?;
        let stand = self.stand().await?;
        let position = position.get_or_insert_with(|| Position::at_end(&stand));
        if position.last > stand.end {
            // Most often a failover has lost its end: what is left of it was read.
            tracing::error!(key = %self.key, "the stream ends before what was read last");
            self.table.tell(Event::Gap { lost: None });
            *position = Position::at_end(&stand);
        }
        self.tell_unread(position, &stand);
        let mut looked = Instant::now();
        self.table.up(Part::Reader);
        *failures = 0;
        loop {
            self.link.still_beside(host)?;
            if looked.elapsed() >= BLOCK {
                self.tell_unread(position, &self.stand().await?);
                looked = Instant::now();
            }
            let room = self.table.room();
            if room == 0 {
                tokio::select! {
                    () = self.table.freed.notified() => {}
                    () = tokio::time::sleep(BLOCK) => {}
                }
                continue;
            }
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT")
                .arg(self.pages.count(room, 1))
                .arg("BLOCK")
                .arg(BLOCK.as_millis() as u64);
            read.arg("STREAMS").arg(&self.key).arg(position.last);
            let reply = timeout(BLOCK + GRACE, connection.send_packed_command(&read)).await;
            if !matches!(reply, Ok(Ok(_))) {
                self.pages.failed();
            }
            let reply = reply.map_err(|_| Failure::silent(BLOCK + GRACE).error)?;
            let reply = checked(reply.map_err(|error| Failure::of(&error).error)?)?;
            let entries = entries(reply);
            self.pages.came(&entries);
            if let Some(last) = entries.last() {
                position.last = last.id;
                position.added = position.added.map(|added| added + entries.len() as u64);
            }
            self.table
                .add(self.table.epoch(), entries, Instant::now() + FOR_EVER);
        }
    }

    /// Where the stream is now. Where it was deleted, whatever is published next makes it again.
    async fn stand(&self) -> Result<Stand, Error> {
        Stand::of(&self.link, &self.key, "").await
    }

    /// Tells of what was deleted before it was read.
    fn tell_unread(&self, position: &mut Position, stand: &Stand) {
        let Some(before) = stand.before_rest(position.last) else {
            return;
        };
        let lost = position.added.map_or(0, |added| before.saturating_sub(added));
        position.added = Some(before);
        if lost > 0 && !self.holds_dead_letters {
            tracing::error!(key = %self.key, lost, "messages were deleted from the stream before they were read");
            self.table.tell(Event::Gap { lost: Some(lost) });
        }
    }
}

fn entries(reply: Value) -> Vec<Entry> {
    let Value::Array(mut streams) = reply else {
        return Vec::new();
    };
    let Some(Value::Array(mut parts)) = streams.pop() else {
        return Vec::new();
    };
    let Some(Value::Array(found)) = parts.pop() else {
        return Vec::new();
    };
    found
        .into_iter()
        .filter_map(|entry| Entry::read(Stream::Topic, entry, 1))
        .collect()
}
