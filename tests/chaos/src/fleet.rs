//! The instances of the service, and who replaced whom.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Result;
use crate::journal::{Line, Tail, What};
use crate::planted::Planted;
use crate::process::{Process, last_lines};
use crate::system::System;

/// How long an instance may take to receive.
const START_LIMIT: Duration = Duration::from_secs(40);
/// How long an instance may take to drain.
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_secs(12);

pub(crate) struct Fleet {
    system: System,
    url: String,
    planted: Option<Planted>,
    directory: PathBuf,
    /// The instances that run, each with the place of its journal.
    running: Vec<(Process, usize)>,
    /// Of every instance there ever was.
    journals: Vec<Tail>,
}

impl Fleet {
    pub(crate) fn new(system: System, url: &str, planted: Option<Planted>, directory: &Path) -> Self {
        Self {
            system,
            url: url.to_owned(),
            planted,
            directory: directory.to_owned(),
            running: Vec::new(),
            journals: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// Starts one more, and does not wait.
    pub(crate) fn add(&mut self) -> Result<()> {
        let started = self.launch()?;
        self.running.push(started);
        Ok(())
    }

    /// Starts one in the place of another, which is handed over.
    pub(crate) fn replace(&mut self, place: usize) -> Result<Process> {
        let started = self.launch()?;
        Ok(std::mem::replace(&mut self.running[place], started).0)
    }

    fn launch(&mut self) -> Result<(Process, usize)> {
        let index = self.journals.len();
        let journal = self.directory.join(format!("consumer-{index}.journal"));
        let mut arguments = vec!["consumer", "--broker", self.system.name(), "--url", &self.url];
        if let Some(bug) = self.planted {
            arguments.extend(["--planted", bug.name()]);
        }
        let process = Process::start(&arguments, journal.clone())?;
        self.journals.push(Tail::new(journal));
        Ok((process, index))
    }

    pub(crate) fn instance(&mut self, place: usize) -> &mut Process {
        &mut self.running[place].0
    }

    /// The places of the running instances' journals.
    pub(crate) fn living(&self) -> Vec<usize> {
        self.running.iter().map(|&(_, index)| index).collect()
    }

    /// Reads on in every journal.
    pub(crate) fn follow(&mut self) -> Result<()> {
        for journal in &mut self.journals {
            journal.follow()?;
        }
        Ok(())
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = &[Line]> {
        self.journals.iter().map(|journal| journal.lines.as_slice())
    }

    /// Waits until every running instance receives.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            self.follow()?;
            let is_ready = |tail: &Tail| tail.lines.iter().any(|line| line.what == What::Ready);
            if self
                .running
                .iter()
                .all(|&(_, index)| is_ready(&self.journals[index]))
            {
                return Ok(());
            }
            self.check()?;
            if Instant::now() > deadline {
                return Err(format!("not every consumer receives after {START_LIMIT:?}").into());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether all that should run do.
    pub(crate) fn check(&mut self) -> Result<()> {
        for (process, index) in &mut self.running {
            if let Some(status) = process.ended()? {
                let log = last_lines(&process.log(), 3);
                return Err(format!("consumer {index} ended by itself ({status}): {log}").into());
            }
        }
        Ok(())
    }

    /// Drains all at once. Tells which did not end well.
    pub(crate) async fn drain(&mut self) -> Result<Vec<String>> {
        let mut failures = Vec::new();
        for (process, _) in &self.running {
            process.signal("TERM").await?;
        }
        for (process, index) in &mut self.running {
            match process.end_within(DRAIN_LIMIT).await? {
                Some(status) if status.success() => {}
                Some(status) => {
                    let log = last_lines(&process.log(), 3);
                    failures.push(format!("consumer {index} drained with {status}: {log}"));
                }
                None => failures.push(format!("consumer {index} did not drain within {DRAIN_LIMIT:?}")),
            }
        }
        Ok(failures)
    }
}
