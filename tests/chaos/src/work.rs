//! What is published, what an id stands for, and the two handlers.

use std::time::Duration;

use postrider::prelude::*;

use crate::journal::Journal;

/// Whose dead letters and depths are asked for.
pub(crate) const GROUP: &str = "chaos";
/// Attempts that the listeners allow; an id that fails more often is given up.
pub(crate) const ATTEMPTS: u32 = 4;

/// A message without an order among others.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "chaos.work", key = lane)]
pub(crate) struct Work {
    pub(crate) id: u64,
    pub(crate) lane: u64,
    #[serde(flatten)]
    pub(crate) fate: Fate,
}

/// A message that keeps its order within its lane.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "chaos.step", key = lane)]
pub(crate) struct Step {
    pub(crate) id: u64,
    pub(crate) lane: u64,
    #[serde(flatten)]
    pub(crate) fate: Fate,
}

/// What becomes of an id, decided by the id alone.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Fate {
    /// How many attempts fail before one succeeds.
    fails: u32,
    /// It can never succeed, and says so at once.
    permanent: bool,
    /// How long an attempt takes.
    millis: u64,
}

impl Fate {
    pub(crate) fn of(id: u64) -> Self {
        // Neighbours go different ways, the same ones in every round.
        let mixed = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let (fails, permanent) = match mixed % 100 {
            0..=4 => (0, true),
            5..=7 => (ATTEMPTS, false),
            8..=14 => (1, false),
            15..=17 => (2, false),
            _ => (0, false),
        };
        Self {
            fails,
            permanent,
            millis: 5 + (mixed / 100) % 60,
        }
    }

    /// Whether it is to end as a dead letter.
    pub(crate) fn is_doomed(self) -> bool {
        self.permanent || self.fails >= ATTEMPTS
    }

    async fn attempt(self, id: u64, attempt: u32, journal: &Journal) -> Result<(), HandlerError> {
        journal.begun(id, attempt)?;
        tokio::time::sleep(Duration::from_millis(self.millis)).await;
        if self.permanent {
            return Err(HandlerError::permanent("this one never succeeds"));
        }
        if attempt <= self.fails {
            return Err(std::io::Error::other("not yet").into());
        }
        journal.effect(id, attempt)?;
        Ok(())
    }
}

/// Notes the effect after the work, so that an acknowledgement before it shows.
#[listener(
    topic = "chaos.work",
    group = "chaos",
    concurrency = 8,
    prefetch = 32,
    retry(attempts = 4, backoff = "100ms..500ms"),
    timeout = "10s"
)]
pub(crate) async fn work(
    work: Work,
    attempt: Attempt,
    State(journal): State<Journal>,
) -> Result<(), HandlerError> {
    work.fate.attempt(work.id, attempt.0, &journal).await
}

/// The same, in order.
#[listener(
    topic = "chaos.step",
    group = "chaos",
    ordered,
    concurrency = 4,
    prefetch = 32,
    retry(attempts = 4, backoff = "50ms..100ms"),
    timeout = "10s"
)]
pub(crate) async fn step(
    step: Step,
    attempt: Attempt,
    State(journal): State<Journal>,
) -> Result<(), HandlerError> {
    step.fate.attempt(step.id, attempt.0, &journal).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fate_is_met() {
        let fates: Vec<Fate> = (0..1_000).map(Fate::of).collect();
        let count = |is: fn(&Fate) -> bool| fates.iter().filter(|fate| is(fate)).count();
        assert!(count(|fate| fate.permanent) > 20);
        assert!(count(|fate| fate.fails == ATTEMPTS) > 10);
        assert!(count(|fate| (1..ATTEMPTS).contains(&fate.fails)) > 40);
        assert!(count(|fate| fate.fails == 0 && !fate.permanent) > 600);
    }
}
