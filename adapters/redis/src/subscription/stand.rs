//! What others delete before it is read. Trimming by this adapter never does that to a group, and leaves in the stream what the
//! group was given last.

use postrider_contract::Error;
use redis::Value;

use crate::failure::unexpected;
use crate::link::{COMMAND, Link};
use crate::scripts::Name;
use crate::subscription::entry::{EntryId, entry_id};

/// Where a stream ends, and what the server has counted of it.
#[derive(Debug, Default)]
pub(crate) struct Stand {
    pub(crate) end: EntryId,
    counts: Option<Counts>,
}

#[derive(Debug)]
struct Counts {
    added: u64,
    left: u64,
    first: EntryId,
    deleted: EntryId,
    /// The last entry that the group was given, and how many had been added by then.
    given: Option<(EntryId, u64)>,
}

/// What is known to be gone that a group was not given.
#[derive(Debug, Default)]
pub(crate) struct Missed {
    /// How many were trimmed, by the server's count. It forgets some of what was read when it starts again.
    trimmed: u64,
    /// The last one that was deleted by itself.
    deleted: EntryId,
}

impl Stand {
    /// Where a stream stands, and this group in it.
    pub(crate) async fn of(link: &Link, key: &str, group: &str) -> Result<Self, Error> {
        let mut ask = link.script(Name::Stand, &[key]);
        ask.arg(group);
        let reply = link.run(&ask, COMMAND).await.map_err(|failure| failure.error)?;
        Self::read(reply).ok_or_else(|| unexpected("the stand script's answer is not understood"))
    }

    fn read(reply: Value) -> Option<Self> {
        let Value::Array(parts) = reply else { return None };
        let mut parts = parts.into_iter();
        let Some(end) = parts.next() else {
            return Some(Self::default());
        };
        Some(Self {
            end: entry_id(end)?,
            counts: parts.next().and_then(|added| Counts::read(added, parts)),
        })
    }

    /// How many were added before the rest, which lies behind this one. Not known in the middle of what is left.
    pub(crate) fn before_rest(&self, last: EntryId) -> Option<u64> {
        let counts = self.counts.as_ref()?;
        if last >= self.end {
            Some(counts.added)
        } else if counts.left == 0 || last < counts.first {
            counts.added.checked_sub(counts.left)
        } else {
            None
        }
    }

    /// Whether the group misses more than what is known, which is noted.
    pub(crate) fn misses_more(&self, known: &mut Missed) -> bool {
        let Some(Counts {
            given: Some((last, read)),
            deleted,
            ..
        }) = self.counts
        else {
            return false;
        };
        let mut more = false;
        if let Some(before) = self.before_rest(last) {
            let trimmed = before.saturating_sub(read);
            more = trimmed > 0 && trimmed != known.trimmed && last < self.end;
            known.trimmed = trimmed;
        }
        if deleted > last && deleted != known.deleted {
            known.deleted = deleted;
            more = true;
        }
        more
    }
}

impl Counts {
    fn read(added: Value, mut rest: impl Iterator<Item = Value>) -> Option<Self> {
        Some(Self {
            added: number(added)?,
            left: number(rest.next()?)?,
            first: entry_id(rest.next()?)?,
            deleted: entry_id(rest.next()?)?,
            given: rest.next().and_then(entry_id).zip(rest.next().and_then(number)),
        })
    }
}

fn number(value: Value) -> Option<u64> {
    redis::from_redis_value(value).ok()
}
