//! What a run leaves for the table of the contract: a file for each broker in the folder that `POSTRIDER_CONFORMANCE`
//! names, a line for each case and each measurement.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The folder, where there is to be a table.
const FOLDER: &str = "POSTRIDER_CONFORMANCE";

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// What it asks for holds.
    Passed,
    /// The broker cannot do this, and says so: before anything starts, or by an answer that tells nothing.
    Refused(String),
    /// The harness says why it cannot be passed on this broker.
    NotPossible(String),
    /// It does not hold.
    Failed,
}

/// What a case has found out on its way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Found>>);

#[derive(Debug, Default)]
struct Found {
    refused: Option<String>,
    late: Vec<(Duration, Duration)>,
}

impl Notes {
    pub(crate) fn refused(&self, what: &str) {
        self.found(|found| found.refused = Some(what.to_owned()));
    }

    pub(crate) fn late(&self, wait: Duration, late: Duration) {
        self.found(|found| found.late.push((wait, late)));
    }

    fn found<T>(&self, change: impl FnOnce(&mut Found) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes down how a case ended, where there is to be a table.
    pub(crate) fn record(&self, harness: &str, case: &str, ended: Outcome) {
        let Some(folder) = std::env::var_os(FOLDER) else {
            return;
        };
        let (refused, late) = self.found(|found| (found.refused.take(), std::mem::take(&mut found.late)));
        let outcome = match (ended, refused) {
            (Outcome::Passed, Some(what)) => Outcome::Refused(what),
            (outcome, _) => outcome,
        };
        let (word, text) = match &outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Refused(what) => ("refused", &**what),
            Outcome::NotPossible(why) => ("not possible", &**why),
            Outcome::Failed => ("failed", ""),
        };
        let mut lines = format!("{case}\t{word}\t{text}\n");
        let measured = |(wait, late): (Duration, Duration)| {
            format!("{case}\tlate\t{} {}\n", wait.as_millis(), late.as_millis())
        };
        lines.extend(late.into_iter().map(measured));
        // One write: other cases append at the same moment.
        let file = Path::new(&folder).join(format!("{}.tsv", broker(harness)));
        let appended = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&file)
            .and_then(|mut file| file.write_all(lines.as_bytes()));
        appended.unwrap_or_else(|error| panic!("{FOLDER}: {} cannot be written: {error}", file.display()));
    }
}

/// The broker that a harness is about: its name may go on, as in `kafka (its own)`.
fn broker(harness: &str) -> &str {
    harness.split(' ').next().unwrap_or(harness)
}

/// What the files of a folder say about one broker: how each case ended, and how late retries of which wait were.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Cases; one may be there more than once, by several harnesses of the broker.
    pub cases: Vec<(String, Outcome)>,
    /// Waits and how late they were, in milliseconds.
    pub late: Vec<(u64, u64)>,
}

impl Recorded {
    /// Reads what was recorded of a broker; nothing where it was not run.
    ///
    /// # Errors
    /// The file cannot be read, or is no such file.
    pub fn read(folder: &Path, broker: &str) -> Result<Self, String> {
        let file = folder.join(format!("{broker}.tsv"));
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(format!("{}: {error}", file.display())),
        };
        let mut recorded = Self::default();
        for line in text.lines() {
            recorded
                .line(line)
                .ok_or_else(|| format!("{}: not understood: {line}", file.display()))?;
        }
        Ok(recorded)
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let mut parts = line.splitn(3, '\t');
        let (case, word, text) = (parts.next()?, parts.next()?, parts.next()?);
        let outcome = match word {
            "passed" => Outcome::Passed,
            "refused" => Outcome::Refused(text.to_owned()),
            "not possible" => Outcome::NotPossible(text.to_owned()),
            "failed" => Outcome::Failed,
            "late" => {
                let (wait, late) = text.split_once(' ')?;
                self.late.push((wait.parse().ok()?, late.parse().ok()?));
                return Some(());
            }
            _ => return None,
        };
        self.cases.push((case.to_owned(), outcome));
        Some(())
    }

    /// How a case ended: failed if it failed anywhere, else passed if it passed anywhere. `None`: it was not run.
    pub fn outcome(&self, case: &str) -> Option<&Outcome> {
        let rank = |outcome: &Outcome| match outcome {
            Outcome::NotPossible(_) => 0,
            Outcome::Refused(_) => 1,
            Outcome::Passed => 2,
            Outcome::Failed => 3,
        };
        let of_case = self.cases.iter().filter(|(name, _)| name == case);
        of_case
            .map(|(_, outcome)| outcome)
            .max_by_key(|outcome| rank(outcome))
    }
}
