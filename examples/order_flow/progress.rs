//! A bar on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::grouped;

/// How often a plain line is written.
const EVERY: Duration = Duration::from_secs(5);

pub(crate) struct Progress {
    total: u64,
    /// `None` where standard error is no terminal.
    bar: Option<ProgressBar>,
    written: Instant,
}

impl Progress {
    pub(crate) fn new(total: usize) -> Self {
        let total = total as u64;
        let bar = || {
            let bar = ProgressBar::new(total);
            if let Ok(style) =
                ProgressStyle::with_template("{elapsed:>4} [{bar:50}] {human_pos} of {human_len} orders")
            {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        };
        Self {
            total,
            bar: std::io::stderr().is_terminal().then(bar),
            written: Instant::now(),
        }
    }

    pub(crate) fn show(&mut self, done: usize) {
        let done = (done as u64).min(self.total);
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None if self.written.elapsed() >= EVERY => {
                self.written = Instant::now();
                eprintln!("{} of {} orders", grouped(done), grouped(self.total));
            }
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
