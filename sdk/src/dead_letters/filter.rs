use std::time::SystemTime;

use super::Listed;
use crate::contract::Bytes;

/// Which dead letters are meant: those that match everything that is said.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use postrider::dead_letters::Filter;
///
/// let hour = Duration::from_secs(3600);
/// let filter = Filter::all().reason("retries_exhausted").error("timed out").since(SystemTime::now() - hour);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    reason: Option<String>,
    error: Option<String>,
    key: Option<Bytes>,
    ids: Option<Vec<Bytes>>,
    since: Option<SystemTime>,
    until: Option<SystemTime>,
    limit: usize,
}

impl Filter {
    /// All of them.
    pub fn all() -> Self {
        Self {
            reason: None,
            error: None,
            key: None,
            ids: None,
            since: None,
            until: None,
            limit: usize::MAX,
        }
    }

    /// Given up for this reason, such as `retries_exhausted` or `decode`.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// The error's text contains this.
    pub fn error(mut self, part: impl Into<String>) -> Self {
        self.error = Some(part.into());
        self
    }

    /// The message has this partition key.
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// One of these: what was picked from a list by other marks than those that a filter knows.
    pub fn ids(mut self, ids: impl IntoIterator<Item = Bytes>) -> Self {
        self.ids = Some(ids.into_iter().collect());
        self
    }

    /// Given up at this time or later, by the clock of the process that gave up.
    pub fn since(mut self, time: SystemTime) -> Self {
        self.since = Some(time);
        self
    }

    /// Given up before this time.
    pub fn until(mut self, time: SystemTime) -> Self {
        self.until = Some(time);
        self
    }

    /// At most so many, the oldest.
    pub fn limit(mut self, most: usize) -> Self {
        self.limit = most;
        self
    }

    pub(super) fn most(&self) -> usize {
        let asked = self.ids.as_ref().map_or(usize::MAX, Vec::len);
        self.limit.min(asked)
    }

    /// Whether it matches, apart from the limit.
    pub fn matches(&self, letter: &Listed) -> bool {
        fn says<T>(asked: Option<&T>, holds: impl FnOnce(&T) -> bool) -> bool {
            asked.is_none_or(holds)
        }
        let at = letter.last_failure;
        says(self.reason.as_ref(), |reason| letter.reason == *reason)
            && says(self.error.as_ref(), |part| letter.error.contains(part))
            && says(self.key.as_ref(), |key| letter.message.key.as_ref() == Some(key))
            && says(self.ids.as_ref(), |ids| ids.contains(&letter.id))
            && says(self.since.as_ref(), |since| at >= *since)
            && says(self.until.as_ref(), |until| at < *until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::contract::{self, Message, names};

    fn letter(id: &'static str) -> Listed {
        let message = Message::new("x")
            .with_key("k1")
            .with_header(names::DEAD_REASON, "decode")
            .with_header(names::DEAD_ERROR, "expected `}` at line 3")
            .with_header(names::DEAD_TOPIC, "t")
            .with_header(names::DEAD_GROUP, "g")
            .with_header(names::DEAD_LAST_FAILURE, 5_000i64);
        let id = Bytes::from_static(id.as_bytes());
        Listed::new(contract::DeadLetter { id, message }, "t", "g")
    }

    #[test]
    fn everything_that_is_said_must_match() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let all = Filter::all;
        let one = letter("1");
        for matching in [
            all(),
            all().reason("decode").error("line 3").key("k1"),
            all().ids(["0".into(), "1".into()]),
            all().since(at(5)).until(at(6)),
        ] {
            assert!(matching.matches(&one), "{matching:?}");
        }
        for other in [
            all().reason("panic"),
            all().reason("decode").error("line 4"),
            all().key("k"),
            all().ids(["2".into()]),
            all().since(at(6)),
            all().until(at(5)),
        ] {
            assert!(!other.matches(&one), "{other:?}");
        }
        assert_eq!(all().ids(["2".into()]).limit(7).most(), 1);
    }
}
