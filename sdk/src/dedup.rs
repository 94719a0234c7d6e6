#![doc = include_str!("docs/dedup.md")]

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub use crate::contract::{DedupScope, DedupStore};
use crate::contract::{Error, async_trait};

/// How many marks of one group at one topic are kept unless told otherwise.
const MOST: usize = 1_000_000;
/// A window past this is as good as none that ends.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Marks in the memory of this process: they end with it, and no other instance sees them.
///
/// About 150 bytes for each beside the id. Marks whose window has passed make room as new ones are set.
pub struct MemoryStore {
    most: usize,
    /// By topic, then by group.
    scopes: Mutex<HashMap<String, HashMap<String, Marks>>>,
}

/// Those of one scope.
#[derive(Default)]
struct Marks {
    until: HashMap<Arc<[u8]>, Instant>,
    /// In the order in which they were set. Where all have one window, as those of a listener, that is the order in which
    /// they end, so that no look has to go further than what has ended.
    set: VecDeque<(Arc<[u8]>, Instant)>,
    /// It was said that there is no room for a whole window.
    said: bool,
}

impl MemoryStore {
    /// Keeps a million marks of each group at each topic.
    pub fn new() -> Self {
        Self::with_room_for(MOST)
    }

    /// Keeps at most so many marks of each group at each topic: more within a window push out the oldest, and are told in the
    /// log.
    pub fn with_room_for(marks: usize) -> Self {
        Self {
            most: marks.max(1),
            scopes: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashMap<String, Marks>>> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl DedupStore for MemoryStore {
    async fn seen(&self, scope: DedupScope<'_>, id: &[u8]) -> Result<bool, Error> {
        let now = Instant::now();
        let mut scopes = self.lock();
        let marks = scopes
            .get_mut(scope.topic)
            .and_then(|groups| groups.get_mut(scope.group));
        Ok(marks.is_some_and(|marks| {
            marks.forget(now);
            marks.until.get(id).is_some_and(|&until| until > now)
        }))
    }

    async fn mark(&self, scope: DedupScope<'_>, id: &[u8], window: Duration) -> Result<(), Error> {
        let now = Instant::now();
        let mut scopes = self.lock();
        let marks = scopes
            .entry(scope.topic.to_owned())
            .or_default()
            .entry(scope.group.to_owned())
            .or_default();
        marks.forget(now);
        while marks.set.len() >= self.most {
            marks.forget_first();
            if !std::mem::replace(&mut marks.said, true) {
                tracing::warn!(
                    topic = scope.topic,
                    group = scope.group,
                    marks = self.most,
                    "more messages are handled within the window of `dedup` than there is room for marks: the oldest are \
                     forgotten, and their duplicates handled",
                );
            }
        }
        let (id, until) = (Arc::<[u8]>::from(id), now + window.min(LONGEST));
        marks.set.push_back((id.clone(), until));
        marks.until.insert(id, until);
        Ok(())
    }

    fn describe(&self) -> String {
        "in the memory of this process: they end with it, and instances do not share them".to_owned()
    }
}

impl Marks {
    /// What has ended.
    fn forget(&mut self, now: Instant) {
        while self.set.front().is_some_and(|(_, until)| *until <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((id, until)) = self.set.pop_front()
            && self.until.get(&id) == Some(&until)
        {
            self.until.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: DedupScope<'_> = DedupScope {
        topic: "t",
        group: "g",
    };
    const HOUR: Duration = Duration::from_secs(3600);

    fn kept(store: &MemoryStore) -> (usize, usize) {
        let scopes = store.lock();
        let marks = &scopes["t"]["g"];
        (marks.until.len(), marks.set.len())
    }

    #[tokio::test(start_paused = true)]
    async fn a_mark_lasts_for_its_window_from_when_it_was_last_set() {
        let store = MemoryStore::new();
        let seen = async || store.seen(SCOPE, b"a").await.unwrap();
        assert!(!seen().await);
        store.mark(SCOPE, b"a", HOUR).await.unwrap();
        tokio::time::advance(HOUR / 2).await;
        assert!(seen().await);
        store.mark(SCOPE, b"a", HOUR).await.unwrap();
        tokio::time::advance(HOUR / 2).await;
        assert!(seen().await, "marked for longer");
        tokio::time::advance(HOUR / 2).await;
        assert!(!seen().await);
        assert_eq!(kept(&store), (0, 0), "nothing is left of it");
    }

    #[tokio::test(start_paused = true)]
    async fn scopes_and_ids_are_apart() {
        let store = MemoryStore::new();
        store.mark(SCOPE, b"a", HOUR).await.unwrap();
        for (topic, group, id) in [
            ("t", "g", "b"),
            ("t", "h", "a"),
            ("u", "g", "a"),
            ("t", "g", "a\0"),
        ] {
            let scope = DedupScope { topic, group };
            assert!(
                !store.seen(scope, id.as_bytes()).await.unwrap(),
                "{topic} {group} {id}"
            );
        }
        let beside = DedupScope { group: "h", ..SCOPE };
        store.mark(beside, b"b", HOUR).await.unwrap();
        assert!(store.seen(beside, b"b").await.unwrap());
        assert!(!store.seen(SCOPE, b"b").await.unwrap());
        store.mark(SCOPE, b"for ever", Duration::MAX).await.unwrap();
        assert!(store.seen(SCOPE, b"for ever").await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_by_the_window_and_by_the_room() {
        let store = MemoryStore::with_room_for(100);
        for n in 0..1000_u32 {
            store.mark(SCOPE, &n.to_be_bytes(), HOUR).await.unwrap();
            tokio::time::advance(HOUR / 50).await;
        }
        assert_eq!(kept(&store), (50, 50), "those of the last hour");
        for n in 0..1000_u32 {
            store.mark(SCOPE, &n.to_be_bytes(), HOUR).await.unwrap();
        }
        assert_eq!(kept(&store), (100, 100));
        let oldest = 900_u32.to_be_bytes();
        assert!(store.seen(SCOPE, &oldest).await.unwrap(), "the last hundred");
    }
}
