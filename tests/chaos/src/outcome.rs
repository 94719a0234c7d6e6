//! What a round came to: its line, and below it what went wrong.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::checker::Verdict;
use crate::round::Plan;

/// What a round came to.
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    pub(crate) detail: String,
    pub(crate) verdict: Verdict,
    /// It was played to its end.
    pub(crate) is_whole: bool,
    /// From the end of the fault to the first effect of something new, on every topic.
    pub(crate) recovery: Option<Duration>,
    /// The same, by the consumer that took longest.
    pub(crate) last_recovery: Option<Duration>,
    /// The longest time, from the begin of the fault on, in which nothing of a topic was handled.
    pub(crate) stall: Duration,
    pub(crate) took: Duration,
    pub(crate) failures: Vec<String>,
    /// Where journals and logs are, if they were kept.
    pub(crate) kept: Option<PathBuf>,
}

impl Outcome {
    /// Nothing is lost, everything goes on; or, with a planted bug: the checker saw a loss.
    pub(crate) fn is_good(&self) -> bool {
        match self.plan.planted {
            None => self.failures.is_empty(),
            // A round that broke off has lost nothing yet.
            Some(_) => self.is_whole && !self.verdict.lost.is_empty(),
        }
    }
}

/// The line of a round, and below it what went wrong.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan {
            system,
            fault,
            seed,
            planted,
            ..
        } = self.plan;
        let verdict = &self.verdict;
        let planted = planted
            .map(|bug| format!(" with {} planted", bug.name()))
            .unwrap_or_default();
        write!(
            f,
            "{:<12} {:<20} seed {seed:<10} sent {:<5} confirmed {:<5} handled {:<5} duplicates {:<4} dead {:<4} \
             lost {:<3} recovery {:<7} all {:<7} stall {:<7}",
            system.name(),
            fault.name(),
            verdict.published,
            verdict.confirmed,
            verdict.handled,
            verdict.duplicates,
            verdict.dead,
            verdict.lost.len(),
            seconds(self.recovery),
            seconds(self.last_recovery),
            seconds(Some(self.stall)),
        )?;
        write!(f, " took {}{planted}; {}", seconds(Some(self.took)), self.detail)?;
        if verdict.unconfirmed > 0 {
            write!(f, "; {} sent again", verdict.unconfirmed)?;
        }
        if verdict.unreceived > 0 {
            write!(f, "; {} told to have no receiver", verdict.unreceived)?;
        }
        if let Some(excuse) = fault.excuse(system) {
            write!(
                f,
                "; gap {} ({excuse}), {} told by consumers",
                verdict.gap, verdict.told
            )?;
        }
        for failure in &self.failures {
            write!(f, "\n    {failure}")?;
        }
        if let Some(kept) = &self.kept {
            write!(f, "\n    journals and logs: {}", kept.display())?;
        }
        Ok(())
    }
}

fn seconds(duration: Option<Duration>) -> String {
    duration.map_or_else(
        || "never".to_owned(),
        |duration| format!("{:.2}s", duration.as_secs_f64()),
    )
}
