//! The consumer's process: a service like any other, which writes down its effects.

use std::path::Path;
use std::time::Duration;

use postrider::{App, Running, listeners};
use tokio::signal::unix::{SignalKind, signal};

use crate::Result;
use crate::journal::Journal;
use crate::planted::{self, Planted};
use crate::process::input_ended;
use crate::system::System;
use crate::work::{GROUP, step, work};

/// Listens until SIGTERM, then drains.
pub(crate) async fn consume(
    system: System,
    url: &str,
    journal: &Path,
    planted: Option<Planted>,
) -> Result<()> {
    let journal = Journal::open(journal)?;
    let mut terminate = signal(SignalKind::terminate())?;
    // As a service has it, unless a bug is to be planted between the app and its broker.
    let app = match planted {
        None => App::new(url)?,
        Some(bug) => App::on(planted::plant(bug, system.connect(url, &instance()).await?)),
    };
    let listeners = if system.is_ordered() {
        listeners![work, step]
    } else {
        listeners![work]
    };
    let app = app
        .name(GROUP)
        .drain_deadline(Duration::from_secs(5))
        .state(journal.clone())
        .listen(listeners);
    let mut running = app.start().await?;
    running.ready().await?;
    journal.ready()?;

    let mut orphaned = input_ended();
    let mut look = tokio::time::interval(Duration::from_millis(250));
    let mut told = 0;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = &mut orphaned => std::process::exit(3),
            error = running.ended() => {
                journal.ended(&error.to_string())?;
                return Err(error.into());
            }
            _ = look.tick() => note_gaps(&running, &journal, &mut told)?,
        }
    }
    note_gaps(&running, &journal, &mut told)?;
    running.shutdown().await?;
    Ok(())
}

fn note_gaps(running: &Running, journal: &Journal, told: &mut u64) -> Result<()> {
    let lost = running.status().iter().map(|status| status.counts.lost).sum();
    if lost > *told {
        *told = lost;
        journal.gap(lost)?;
    }
    Ok(())
}

fn instance() -> String {
    format!("chaos-{}", std::process::id())
}
