//! What the settler does with what was handed out.

use std::sync::atomic::{AtomicUsize, Ordering};

use postrider_contract::Token;

use crate::subscription::table::{Held, Named, Table, Waiting};

impl Table {
    /// What this token names; `None` if it is stale.
    pub(crate) fn named(&self, tokens: impl Iterator<Item = Token>) -> Vec<Option<Named>> {
        let state = self.state();
        tokens
            .map(|token| {
                let held = (token.epoch == state.epoch)
                    .then(|| state.held.get(&token.seq))
                    .flatten()?;
                (!held.lost).then(|| Named {
                    place: held.entry.place(),
                    orphaned: held.entry.orphaned,
                })
            })
            .collect()
    }

    /// These are settled.
    pub(crate) fn settled(&self, tokens: impl Iterator<Item = Token>) {
        let mut state = self.state();
        for token in tokens {
            if token.epoch == state.epoch {
                state.held.remove(&token.seq);
            }
        }
        drop(state);
        self.freed.notify_one();
    }

    /// Hands it out again. False if it is stale.
    pub(crate) fn release(&self, token: Token) -> bool {
        let mut state = self.state();
        if token.epoch != state.epoch {
            return false;
        }
        let Some(Held {
            mut entry,
            leased_until,
            lost: false,
        }) = state.held.remove(&token.seq)
        else {
            return false;
        };
        entry.released = entry.released.saturating_add(1);
        // In order where order counts, first of all where it does not.
        let at = if self.ordered {
            let later =
                |waiting: &Waiting| waiting.entry.stream == entry.stream && waiting.entry.id > entry.id;
            state
                .waiting
                .iter()
                .position(later)
                .unwrap_or(state.waiting.len())
        } else {
            0
        };
        state.waiting.insert(
            at,
            Waiting {
                entry,
                seen: true,
                leased_until,
            },
        );
        drop(state);
        self.arrived.notify_one();
        true
    }

    /// A settle call is under way as long as this lives.
    pub(crate) fn settling(&self) -> Settling<'_> {
        self.settling.fetch_add(1, Ordering::AcqRel);
        Settling(&self.settling)
    }

    pub(crate) fn is_settling(&self) -> bool {
        self.settling.load(Ordering::Acquire) > 0
    }
}

pub(crate) struct Settling<'a>(&'a AtomicUsize);

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
