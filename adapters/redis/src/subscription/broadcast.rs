//! Broadcast on Streams: reads the topic without a group, from where it stands when the subscription opens.

use std::sync::Arc;
use std::time::Duration;

use postrider_contract::{Backoff, Error, Event};
use redis::Value;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, checked, unexpected};
use crate::link::{COMMAND, Dedicated, Link};
use crate::status::is_missing;
use crate::subscription::entry::{Entry, EntryId, Stream, entry_id};
use crate::subscription::page::Pages;
use crate::subscription::reader::is_fatal;
use crate::subscription::table::{Part, Table};

const BLOCK: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(5);
/// Nothing is leased here.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

pub(crate) struct BroadcastReader {
    pub(crate) link: Arc<Link>,
    pub(crate) table: Arc<Table>,
    pub(crate) key: String,
    pub(crate) pages: Pages,
    pub(crate) stop: CancellationToken,
    pub(crate) closing: CancellationToken,
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

    async fn session(&self, position: &mut Option<EntryId>, failures: &mut u32) -> Result<(), Error> {
        let Dedicated {
            mut connection, host, ..
        } = self.link.beside().await?;
        let end = self.end().await?;
        match position {
            Some(before) if *before > end => {
                // Most often a failover has lost its end: what is left of it was read.
                tracing::error!(key = %self.key, "the stream ends before what was read last");
                self.table.tell(Event::Gap { lost: None });
                *position = Some(end);
            }
            Some(_) => {}
            None => *position = Some(end),
        }
        self.table.up(Part::Reader);
        *failures = 0;
        loop {
            self.link.still_beside(host)?;
            let room = self.table.room();
            if room == 0 {
                tokio::select! {
                    () = self.table.freed.notified() => {}
                    () = tokio::time::sleep(BLOCK) => {}
                }
                continue;
            }
            let after = position.unwrap_or_default();
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT")
                .arg(self.pages.count(room, 1))
                .arg("BLOCK")
                .arg(BLOCK.as_millis() as u64);
            read.arg("STREAMS").arg(&self.key).arg(after.to_string());
            let reply = timeout(BLOCK + GRACE, connection.send_packed_command(&read)).await;
            if !matches!(reply, Ok(Ok(_))) {
                self.pages.failed();
            }
            let reply = reply.map_err(|_| Failure::silent(BLOCK + GRACE).error)?;
            let reply = checked(reply.map_err(|error| Failure::of(&error).error)?)?;
            let entries = entries(reply);
            self.pages.came(&entries);
            if let Some(last) = entries.last() {
                *position = Some(last.id);
            }
            self.table
                .add(self.table.epoch(), entries, Instant::now() + FOR_EVER);
        }
    }

    /// Where the stream ends now.
    async fn end(&self) -> Result<EntryId, Error> {
        let mut info = redis::cmd("XINFO");
        info.arg("STREAM").arg(&self.key);
        let reply = match self.link.run(&info, COMMAND).await {
            Ok(reply) => reply,
            // It was deleted: whatever is published next makes it again.
            Err(failure) if is_missing(&failure) => return Ok(EntryId::default()),
            Err(failure) => return Err(failure.error),
        };
        let Value::Array(parts) = reply else {
            return Err(unexpected("the answer to XINFO STREAM is not understood"));
        };
        let mut parts = parts.into_iter();
        while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            if name == Value::BulkString(b"last-generated-id".to_vec()) {
                return entry_id(value).ok_or_else(|| unexpected("a stream's last id is not understood"));
            }
        }
        Err(unexpected("XINFO STREAM does not tell the last id"))
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
