//! Effects that happen once, however often their message comes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What has taken effect, by its subject.
///
/// Messages are delivered at least once: after a crash or a lost connection, one may come again. What it does is entered
/// here under the order's number, and the second time the entry is found and nothing is done. In a service this is a
/// table with a unique key, written in the same transaction as the effect.
pub(crate) struct Ledger<K, V> {
    entries: Mutex<HashMap<K, V>>,
    repeats: AtomicU64,
}

impl<K, V> Default for Ledger<K, V> {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            repeats: AtomicU64::new(0),
        }
    }
}

impl<K: Eq + Hash, V: Clone> Ledger<K, V> {
    /// The subject's entry, made now if there is none.
    ///
    /// # Errors
    /// The effect failed: nothing is entered.
    pub(crate) fn once<E>(&self, subject: K, effect: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        let mut entries = self.lock();
        if let Some(entry) = entries.get(&subject) {
            self.repeats.fetch_add(1, Ordering::Relaxed);
            return Ok(entry.clone());
        }
        let entry = effect()?;
        entries.insert(subject, entry.clone());
        Ok(entry)
    }

    /// Enters what cannot fail.
    pub(crate) fn enter(&self, subject: K, entry: V) {
        let entered: Result<V, std::convert::Infallible> = self.once(subject, || Ok(entry));
        drop(entered);
    }

    pub(crate) fn get(&self, subject: &K) -> Option<V> {
        self.lock().get(subject).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn entries(&self) -> HashMap<K, V>
    where
        K: Clone,
    {
        self.lock().clone()
    }

    /// How often a message came that had taken effect before.
    pub(crate) fn repeats(&self) -> u64 {
        self.repeats.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
