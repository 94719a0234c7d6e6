//! Places the orders and waits until they are through.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::{Counts, Error, ErrorKind, ListenerStatus, Running};

use crate::orders::{self, Fate, Line};
use crate::progress::Progress;
use crate::shop::Shop;
use crate::verdict::Verdict;

/// How long nothing at all may happen before it is given up: a broker that was restarted may take minutes to go on.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);
/// For how long nothing may happen before the effects are judged although something is still unsettled.
const QUIET: Duration = Duration::from_secs(2);
/// How often the effects are judged while something is still missing.
const AGAIN: Duration = Duration::from_secs(2);

/// How the watch ended.
pub(crate) enum Watched {
    /// Every effect is as it should be, after this time.
    Done(Verdict, Duration),
    /// Nothing happens any more.
    Stuck(Verdict, Duration),
    /// By Ctrl-C or SIGTERM.
    Interrupted,
}

/// # Errors
/// The orders could not be placed, or a listener has ended.
pub(crate) async fn until_done(
    running: &mut Running,
    shop: &Shop,
    lines: &Arc<[Line]>,
) -> Result<Watched, Error> {
    let interrupted = interrupted();
    tokio::pin!(interrupted);
    tokio::select! {
        ready = tokio::time::timeout(PATIENCE, running.ready()) => match ready {
            Ok(ready) => ready?,
            Err(_) => {
                let text = format!("not every listener receives after {} s: {running:?}", PATIENCE.as_secs());
                return Err(Error::new(ErrorKind::Unavailable, text));
            }
        },
        () = &mut interrupted => return Ok(Watched::Interrupted),
    }

    let begin = Instant::now();
    let placing = orders::place(running.publisher(), shop.run.clone(), lines.clone());
    tokio::pin!(placing);
    let mut placed = false;
    let mut progress = Progress::new(lines.len());
    let mut activity = Activity::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            result = &mut placing, if !placed => {
                result?;
                placed = true;
            }
            ended = running.ended() => return Err(ended),
            () = &mut interrupted => return Ok(Watched::Interrupted),
            _ = ticks.tick() => {}
        }
        let status = running.status();
        progress.show(shop.through() + given_up(&status));
        let idle = activity.idle(shop, &status);
        let finished = placed && shop.through() >= due(lines) && (is_settled(shop, &status) || idle > QUIET);
        if idle < PATIENCE && !(finished && activity.may_judge()) {
            continue;
        }
        let verdict = tokio::select! {
            verdict = Verdict::of(shop, lines, running) => verdict,
            () = &mut interrupted => return Ok(Watched::Interrupted),
        };
        let took = activity.last - begin;
        if verdict.is_good() {
            return Ok(Watched::Done(verdict, took));
        }
        if idle > PATIENCE {
            return Ok(Watched::Stuck(verdict, took));
        }
    }
}

/// When something last took effect, and when it was last judged.
struct Activity {
    effects: u64,
    last: Instant,
    judged: Option<Instant>,
}

impl Activity {
    fn new() -> Self {
        Self {
            effects: 0,
            last: Instant::now(),
            judged: None,
        }
    }

    /// For how long nothing has happened.
    fn idle(&mut self, shop: &Shop, status: &[ListenerStatus]) -> Duration {
        let foreign: u64 = shop.this_run.foreign().values().sum();
        let effects = (shop.effects() + given_up(status)) as u64 + foreign;
        if effects != self.effects {
            self.effects = effects;
            self.last = Instant::now();
        }
        self.last.elapsed()
    }

    /// Once in a while: the broker is asked for all dead letters.
    fn may_judge(&mut self) -> bool {
        let may = self.judged.is_none_or(|judged| judged.elapsed() > AGAIN);
        if may {
            self.judged = Some(Instant::now());
        }
        may
    }
}

/// How many orders should be shipped or compensated.
fn due(lines: &[Line]) -> usize {
    lines
        .iter()
        .filter(|line| !matches!(line.fate, Fate::DeadLettered(_)))
        .count()
}

/// How many orders the first step has given up.
fn given_up(status: &[ListenerStatus]) -> usize {
    let first = status.iter().find(|listener| listener.name == "reserve_stock");
    first.map_or(0, |listener| listener.counts.dead_lettered as usize)
}

/// Whether nothing is to come again, and all that was received is settled, so that the counts are final.
fn is_settled(shop: &Shop, status: &[ListenerStatus]) -> bool {
    shop.this_run.open().is_empty()
        && status.iter().all(|listener| {
            let Counts {
                received,
                handled,
                retried,
                dead_lettered,
                released,
                stale,
                ..
            } = listener.counts;
            received <= handled + retried + dead_lettered + released + stale
        })
}

/// Resolves on Ctrl-C, and on SIGTERM where there is such a thing.
pub(crate) async fn interrupted() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        return;
    }
    let _ = tokio::signal::ctrl_c().await;
}
