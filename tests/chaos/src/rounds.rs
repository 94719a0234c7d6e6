//! Which rounds are played, one after the other, and what they came to together.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum as _};
use fastrand::Rng;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Result;
use crate::fault::Fault;
use crate::planted::Planted;
use crate::round::{self, Plan};
use crate::system::System;

/// The rounds to play. Without `--for`, every fault on every broker once.
#[derive(Args)]
pub(crate) struct Rounds {
    /// This broker alone; repeatable. All unless given
    #[arg(long = "broker", value_delimiter = ',')]
    brokers: Vec<System>,
    /// This fault alone; repeatable. All unless given
    #[arg(long = "fault", value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Goes on with faults chosen at random for so long, such as 30m
    #[arg(long = "for", value_parser = humantime::parse_duration)]
    long: Option<Duration>,
    /// Decides everything that is left to chance; drawn, and printed, unless given
    #[arg(long)]
    seed: Option<u64>,
    /// Messages published in a second
    #[arg(long, default_value_t = 150)]
    rate: u64,
    /// Where journals and logs of failed rounds are kept
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Keeps those of all rounds
    #[arg(long)]
    keep: bool,
    /// Plants a bug in the consumers: a round is good if its loss is found
    #[arg(long, hide = true)]
    planted: Option<Planted>,
}

/// Plays them. True if all were good.
pub(crate) async fn play(rounds: Rounds) -> Result<bool> {
    let seed = rounds.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    let directory = rounds
        .directory
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("postrider-chaos-{}", std::process::id())));
    let mut interrupt = interrupts()?;
    let begin = Instant::now();
    let (mut played, mut bad) = (0, 0);
    let mut plans = Plans::new(&rounds, seed);
    while let Some(plan) = plans.next(begin.elapsed()) {
        let place = directory.join(format!(
            "{}-{}-{}",
            plan.system.name(),
            plan.fault.name(),
            plan.seed
        ));
        let interrupted = async {
            let _ = interrupt.wait_for(|is_interrupted| *is_interrupted).await;
        };
        let outcome = round::play(plan, &place, interrupted).await;
        // Empty unless a round failed.
        let _ = std::fs::remove_dir(&directory);
        let outcome = outcome?;
        println!("{outcome}");
        played += 1;
        bad += usize::from(!outcome.is_good());
    }
    println!(
        "{played} rounds in {} s, {bad} failed; seed {seed}",
        begin.elapsed().as_secs()
    );
    Ok(bad == 0 && played > 0)
}

/// True from the first SIGINT or SIGTERM on.
fn interrupts() -> Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        sender.send_replace(true);
        // Held, so that who waits for it waits on.
        std::future::pending::<()>().await;
    });
    Ok(receiver)
}

/// The rounds to come.
struct Plans<'a> {
    rounds: &'a Rounds,
    systems: Vec<System>,
    faults: Vec<Fault>,
    /// What is left of the matrix.
    left: Vec<(System, Fault)>,
    random: Rng,
    seed: Option<u64>,
}

impl<'a> Plans<'a> {
    fn new(rounds: &'a Rounds, seed: u64) -> Self {
        let all = |given: &[System]| {
            if given.is_empty() {
                System::value_variants().to_vec()
            } else {
                given.to_vec()
            }
        };
        let systems = all(&rounds.brokers);
        let faults = if rounds.faults.is_empty() {
            Fault::value_variants().to_vec()
        } else {
            rounds.faults.clone()
        };
        let mut this = Self {
            rounds,
            systems,
            faults,
            left: Vec::new(),
            random: Rng::with_seed(seed),
            seed: rounds.seed,
        };
        this.refill();
        this
    }

    /// Every fault on every broker, the brokers by turns.
    fn refill(&mut self) {
        for &fault in &self.faults {
            for &system in &self.systems {
                self.left.push((system, fault));
            }
        }
        if self.rounds.long.is_some() {
            self.random.shuffle(&mut self.left);
        }
        self.left.reverse();
    }

    fn next(&mut self, elapsed: Duration) -> Option<Plan> {
        if let Some(long) = self.rounds.long {
            if elapsed >= long {
                return None;
            }
            if self.left.is_empty() {
                self.refill();
            }
        }
        let (system, fault) = self.left.pop()?;
        // A seed that was given is the first round's own, so that a line that was printed can be played again.
        let seed = self.seed.take().unwrap_or_else(|| u64::from(self.random.u32(..)));
        Some(Plan {
            system,
            fault,
            seed,
            planted: self.rounds.planted,
            rate: self.rounds.rate,
            keep: self.rounds.keep,
        })
    }
}
