//! Publishers and consumers as processes of their own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::Result;

/// A process of this program in another role, killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    /// Apart from the child, since waiting for that would end it.
    input: Option<ChildStdin>,
    pub(crate) journal: PathBuf,
}

impl Process {
    /// Starts this program with these arguments and a journal; what it logs goes beside the journal.
    pub(crate) fn start(arguments: &[&str], journal: PathBuf) -> Result<Self> {
        let log = File::create(journal.with_extension("log"))?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .arg("--journal")
            .arg(&journal)
            // It ends when the other end of this does, however that happens.
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // An interrupt is for the driver, which ends its processes in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take();
        Ok(Self {
            child,
            input,
            journal,
        })
    }

    /// Sends it a signal by name.
    pub(crate) async fn signal(&self, signal: &str) -> Result<()> {
        let Some(id) = self.child.id() else {
            return Ok(());
        };
        let status = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(id.to_string())
            .stdin(Stdio::null())
            .status()
            .await?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("kill -{signal} {id} failed").into())
        }
    }

    /// Ends it with SIGKILL.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Ends its standard input, which asks a publisher to finish.
    pub(crate) fn close_input(&mut self) {
        drop(self.input.take());
    }

    /// How it ended, where it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end; killed where that takes longer.
    pub(crate) async fn end_within(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        match timeout(limit, self.child.wait()).await {
            Ok(status) => Ok(Some(status?)),
            Err(_) => {
                self.kill().await?;
                Ok(None)
            }
        }
    }

    /// The file with what it logged.
    pub(crate) fn log(&self) -> PathBuf {
        self.journal.with_extension("log")
    }
}

/// Resolves when this process's standard input ends. The driver holds the other end, so that it ends also when the driver is
/// no more.
pub(crate) fn input_ended() -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    // A thread of its own: the runtime would wait for its read when it ends.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = sender.send(());
    });
    receiver
}

/// The last lines of a file, for a message.
pub(crate) fn last_lines(path: &Path, count: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
