//! All groups, by index, and which of them have something new.

use std::mem;

use tokio::time::Instant;

use crate::group::{Entry, Group};

/// The groups of a broker. An index names a group for as long as it lives.
#[derive(Default)]
pub(crate) struct Queues {
    groups: Vec<Option<Group>>,
    /// Groups to wake at the end of this call.
    touched: Vec<usize>,
}

impl Queues {
    pub(crate) fn add(&mut self, group: Group) -> usize {
        insert(&mut self.groups, group)
    }

    pub(crate) fn remove(&mut self, index: usize) {
        self.groups[index] = None;
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&Group> {
        self.groups[index].as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut Group> {
        self.groups[index].as_mut()
    }

    /// Adds a message at the end of a group's queue, or for later.
    #[inline]
    pub(crate) fn enqueue(&mut self, index: usize, entry: Entry, due: Option<Instant>) {
        let Some(group) = &mut self.groups[index] else {
            return;
        };
        match due {
            None => {
                group.push(entry);
                self.touch(index);
            }
            Some(due) => {
                if group.push_later(entry, due) {
                    // Everyone who sleeps until something later must wake earlier now.
                    group.wake.notify_waiters();
                }
            }
        }
    }

    /// Takes messages back: they come again before the others.
    pub(crate) fn give_back(&mut self, index: usize, entries: impl IntoIterator<Item = Entry>) {
        if let Some(group) = &mut self.groups[index] {
            entries.into_iter().for_each(|entry| group.give_back(entry));
        }
        self.touch(index);
    }

    /// Wakes one subscription of every group that has something new.
    #[inline]
    pub(crate) fn wake(&mut self) {
        while let Some(index) = self.touched.pop() {
            if let Some(group) = &mut self.groups[index] {
                group.touched = false;
                group.wake.notify_one();
            }
        }
    }

    #[inline]
    fn touch(&mut self, index: usize) {
        if let Some(group) = &mut self.groups[index]
            && !mem::replace(&mut group.touched, true)
        {
            self.touched.push(index);
        }
    }
}

/// Puts a value at the first free place.
pub(crate) fn insert<T>(places: &mut Vec<Option<T>>, value: T) -> usize {
    match places.iter().position(Option::is_none) {
        Some(free) => {
            places[free] = Some(value);
            free
        }
        None => {
            places.push(Some(value));
            places.len() - 1
        }
    }
}
