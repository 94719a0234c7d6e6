//! One round: a broker, a publisher, consumers, one fault, a verdict.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep, timeout};

use crate::Result;
use crate::broker::OwnBroker;
use crate::checker::{Evidence, Excused, Verdict};
use crate::fault::Fault;
use crate::fleet::Fleet;
use crate::inject::Scene;
use crate::inspect::Inspector;
use crate::journal::{Micros, Tail, now};
use crate::outcome::Outcome;
use crate::planted::Planted;
use crate::process::{Process, last_lines};
use crate::proxy::Proxy;
use crate::publishing::{ordered_lane, topics_ids};
use crate::system::System;
use crate::work::Fate;

/// How many consumers share the work.
const CONSUMERS: usize = 3;
/// How long the service may take after a fault until every consumer handles new messages again.
const RECOVERY_LIMIT: Duration = Duration::from_secs(25);
/// How long the first messages may take.
const LOAD_LIMIT: Duration = Duration::from_secs(45);
/// What was sent so long after the fault must be handled by every consumer: what the fault does to them may show late.
const AFTERMATH: Duration = Duration::from_secs(2);
/// How long what was confirmed may take to be handled once nothing is published any more.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// No round takes longer: something hangs.
const ROUND_LIMIT: Duration = Duration::from_secs(240);
/// How long nothing may happen, with nothing left to do, before what is missing counts as lost.
const QUIET: Duration = Duration::from_secs(5);
/// What was on the way when a fault began may be caught by it.
const ON_THE_WAY: Micros = 1_000_000;
/// So long after a fault its consumers may find out what was lost by it. What they tell later is of something else.
const FOUND_OUT: Micros = 15_000_000;

/// What a round is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) system: System,
    pub(crate) fault: Fault,
    pub(crate) seed: u64,
    /// A bug that the checker has to find.
    pub(crate) planted: Option<Planted>,
    /// Messages published in a second.
    pub(crate) rate: u64,
    /// Journals and logs are kept also if all is well.
    pub(crate) keep: bool,
}

/// Everything that a round started, so that it can be ended wherever the round is.
struct Stage {
    plan: Plan,
    directory: PathBuf,
    random: Rng,
    broker: OwnBroker,
    proxy: Option<Proxy>,
    fleet: Fleet,
    publisher: Option<Process>,
    sends: Tail,
    dead: HashSet<u64>,
    detail: String,
    begin: Micros,
    end: Micros,
    recovered: Option<Micros>,
    /// When nothing was published any more.
    stopped: Micros,
    /// Of each consumer that must go on, when it handled something new.
    back: Vec<Option<Micros>>,
    failures: Vec<String>,
}

/// Plays a round in a directory, and leaves nothing running. The directory is kept if the round fails.
pub(crate) async fn play(
    plan: Plan,
    directory: &Path,
    interrupted: impl Future<Output = ()>,
) -> Result<Outcome> {
    let started = Instant::now();
    // Of a round with the same seed, which failed.
    let _ = std::fs::remove_dir_all(directory);
    std::fs::create_dir_all(directory)?;
    let mut stage = Stage::new(plan, directory)?;
    let ended = tokio::select! {
        ended = timeout(ROUND_LIMIT, stage.play()) => ended,
        () = interrupted => {
            stage.clear().await;
            std::fs::remove_dir_all(directory)?;
            return Err("interrupted".into());
        }
    };
    let is_whole = matches!(ended, Ok(Ok(())));
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => stage.failures.push(error.to_string()),
        Err(_) => stage
            .failures
            .push(format!("the round takes longer than {ROUND_LIMIT:?}")),
    }
    stage.clear().await;
    let mut outcome = Outcome {
        is_whole,
        ..stage.judge(started.elapsed())?
    };
    if outcome.is_good() && !plan.keep {
        std::fs::remove_dir_all(directory)?;
    } else {
        outcome.kept = Some(directory.to_owned());
    }
    Ok(outcome)
}

impl Stage {
    fn new(plan: Plan, directory: &Path) -> Result<Self> {
        let broker = OwnBroker::prepare(plan.system, directory)?;
        let port = if plan.fault.needs_proxy() {
            broker.proxy_port()
        } else {
            broker.port()
        };
        Ok(Self {
            plan,
            directory: directory.to_owned(),
            random: Rng::with_seed(plan.seed),
            fleet: Fleet::new(plan.system, &plan.system.url(port), plan.planted, directory),
            broker,
            proxy: None,
            publisher: None,
            sends: Tail::new(directory.join("publisher.journal")),
            dead: HashSet::new(),
            detail: String::new(),
            begin: 0,
            end: 0,
            recovered: None,
            stopped: 0,
            back: Vec::new(),
            failures: Vec::new(),
        })
    }

    async fn play(&mut self) -> Result<()> {
        self.broker.up().await?;
        if self.plan.fault.needs_proxy() {
            self.proxy = Some(Proxy::start(self.broker.proxy_port(), self.broker.behind_port()).await?);
        }
        for _ in 0..CONSUMERS {
            self.fleet.add()?;
        }
        self.fleet.ready().await?;
        // RabbitMQ 3.10 writes down some half a second late that it has a new quorum queue.
        sleep(Duration::from_secs(1)).await;
        self.start_publishing()?;
        self.wait_for_load().await?;

        self.begin = now();
        let mut scene = Scene {
            system: self.plan.system,
            broker: &self.broker,
            proxy: self.proxy.as_ref(),
            fleet: &mut self.fleet,
            random: &mut self.random,
        };
        self.detail = scene.inject(self.plan.fault).await?;
        self.end = now();
        self.wait_for_recovery().await?;
        self.stop_publishing().await?;
        self.settle().await?;
        let failures = self.fleet.drain().await?;
        self.failures.extend(failures);
        Ok(())
    }

    fn start_publishing(&mut self) -> Result<()> {
        let port = if self.proxy.is_some() {
            self.broker.proxy_port()
        } else {
            self.broker.port()
        };
        let url = self.plan.system.url(port);
        let rate = self.plan.rate.to_string();
        let arguments = [
            "publisher",
            "--broker",
            self.plan.system.name(),
            "--url",
            &url,
            "--rate",
            &rate,
        ];
        let journal = self.directory.join("publisher.journal");
        self.publisher = Some(Process::start(&arguments, journal)?);
        Ok(())
    }

    /// Reads on in all journals.
    fn evidence(&mut self) -> Result<Evidence> {
        self.sends.follow()?;
        self.fleet.follow()?;
        Ok(Evidence::gather(
            &self.sends.lines,
            self.fleet.lines(),
            &self.dead,
        ))
    }

    /// Waits until every consumer has handled something, and some more, so that retries are on their way.
    async fn wait_for_load(&mut self) -> Result<()> {
        let deadline = Instant::now() + LOAD_LIMIT;
        loop {
            let evidence = self.evidence()?;
            let living = self.fleet.living();
            let all = living
                .iter()
                .all(|&index| evidence.first_new_effect(0, Some(index), |_| true).is_some());
            if all && evidence.effects.len() > 150 {
                let more = Duration::from_millis(self.random.u64(300..1_500));
                sleep(more).await;
                return Ok(());
            }
            self.fleet.check()?;
            if Instant::now() > deadline {
                return Err("no load before the fault: not every consumer handles messages".into());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until every consumer handles what was sent after the fault.
    async fn wait_for_recovery(&mut self) -> Result<()> {
        let end = Instant::now();
        loop {
            let evidence = self.evidence()?;
            let topics = topics_ids(self.plan.system);
            let firsts = topics
                .iter()
                .map(|ids| evidence.first_new_effect(self.end, None, ids));
            self.recovered = firsts
                .collect::<Option<Vec<_>>>()
                .and_then(|firsts| firsts.into_iter().max());
            let living = self.fleet.living();
            let back = |&index: &usize| evidence.first_new_effect(self.end, Some(index), |_| true);
            self.back = living.iter().map(back).collect();
            let later = self.end + AFTERMATH.as_micros() as u64;
            let is_idle =
                |&&index: &&usize| evidence.first_new_effect(later, Some(index), |_| true).is_none();
            let idle = living.iter().filter(is_idle).count();
            let is_silent = |ids: &&_| evidence.first_new_effect(later, None, ids).is_none();
            let silent = topics.iter().filter(is_silent).count();
            if idle + silent == 0 {
                return Ok(());
            }
            if end.elapsed() > RECOVERY_LIMIT {
                self.failures.push(format!(
                    "after {RECOVERY_LIMIT:?} {idle} of {} consumers have handled nothing new, and on {silent} of {} topics \
                     nothing flows",
                    self.back.len(),
                    topics.len()
                ));
                return Ok(());
            }
            self.fleet.check()?;
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn stop_publishing(&mut self) -> Result<()> {
        let Some(publisher) = &mut self.publisher else {
            return Ok(());
        };
        publisher.close_input();
        self.stopped = now();
        match publisher.end_within(Duration::from_secs(20)).await? {
            Some(status) if status.success() => {}
            Some(status) => {
                let log = last_lines(&publisher.log(), 3);
                self.failures
                    .push(format!("the publisher ended with {status}: {log}"));
            }
            None => self
                .failures
                .push("the publisher did not finish within 20 s".to_owned()),
        }
        Ok(())
    }

    /// Waits until everything confirmed is accounted for, or nothing moves any more.
    async fn settle(&mut self) -> Result<()> {
        let inspector =
            Inspector::connect(self.plan.system, &self.plan.system.url(self.broker.port())).await?;
        let settled = self.settle_by(&inspector).await;
        inspector.close().await;
        settled
    }

    async fn settle_by(&mut self, inspector: &Inspector) -> Result<()> {
        let begin = Instant::now();
        loop {
            if !self.evidence()?.missing().is_empty() {
                self.dead = inspector.dead().await?;
            }
            let evidence = self.evidence()?;
            let missing = evidence.missing().len();
            if missing == 0 {
                // For what is delivered twice, or given up though it was handled.
                sleep(Duration::from_millis(500)).await;
                self.dead = inspector.dead().await?;
                return Ok(());
            }
            let depth = inspector.depth().await?;
            let last = evidence.last_effect().unwrap_or_default();
            let is_quiet = begin.elapsed() > QUIET && now().saturating_sub(last) > QUIET.as_micros() as u64;
            // Who does not tell how much waits for later is given more time.
            let patience = if depth.retrying.is_some() {
                QUIET
            } else {
                QUIET * 3
            };
            let is_done = depth.is_empty() || self.plan.planted.is_some();
            if is_quiet && is_done && begin.elapsed() > patience {
                return Ok(());
            }
            if begin.elapsed() > SETTLE_LIMIT {
                self.failures.push(format!(
                    "{missing} confirmed messages are not handled after {SETTLE_LIMIT:?}; the broker has {depth:?}"
                ));
                return Ok(());
            }
            self.fleet.check()?;
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Ends everything; the broker's data goes with it unless the directory is kept.
    async fn clear(&mut self) {
        for place in 0..self.fleet.len() {
            let _ = self.fleet.instance(place).kill().await;
        }
        if let Some(publisher) = &mut self.publisher {
            let _ = publisher.kill().await;
        }
        if let Err(error) = self.broker.verb("stop").await {
            self.failures.push(error.to_string());
        }
    }

    fn judge(mut self, took: Duration) -> Result<Outcome> {
        let evidence = self.evidence()?;
        let excuse = self.plan.fault.excuse(self.plan.system);
        let back = self.back.iter().copied().max().flatten();
        let from = if self.plan.fault == Fault::Deleted {
            0
        } else {
            self.begin.saturating_sub(ON_THE_WAY)
        };
        let excused = excuse.map(|_| Excused {
            from,
            // A connection that was lost may be found out, and made again, later than the fault ended.
            to: back.map_or(Micros::MAX, |at| {
                at.max(evidence.last_told.min(at + FOUND_OUT)) + ON_THE_WAY / 2
            }),
            // The queue of that topic is what was deleted.
            unordered_alone: self.plan.fault == Fault::Deleted,
        });
        let lane = |id| ordered_lane(self.plan.system, id);
        let verdict = Verdict::of(&evidence, excused, lane, |id| Fate::of(id).is_doomed());
        let mut failures = self.failures;
        failures.extend(
            evidence
                .ended
                .iter()
                .map(|why| format!("a consumer ended by itself: {why}")),
        );
        if !verdict.lost.is_empty() {
            let some: Vec<String> = verdict.lost.iter().take(10).map(u64::to_string).collect();
            failures.push(format!("lost {}: {}", verdict.lost.len(), some.join(" ")));
        }
        if !verdict.wronged.is_empty() {
            let some: Vec<String> = verdict.wronged.iter().take(10).map(u64::to_string).collect();
            let count = verdict.wronged.len();
            failures.push(format!(
                "{count} given up that would have succeeded: {}",
                some.join(" ")
            ));
        }
        if verdict.unexpected > 0 {
            failures.push(format!("{} handled that were never sent", verdict.unexpected));
        }
        if verdict.disorder > 0 {
            failures.push(format!("{} times out of order", verdict.disorder));
        }
        let (begin, stopped) = (self.begin, self.stopped.max(self.begin));
        let stalls = topics_ids(self.plan.system)
            .into_iter()
            .map(|ids| evidence.longest_stall(begin, stopped, ids));
        let stall = Duration::from_micros(stalls.max().unwrap_or(0));
        let since = |at: Micros| Duration::from_micros(at.saturating_sub(self.end));
        Ok(Outcome {
            plan: self.plan,
            detail: self.detail,
            recovery: self.recovered.map(since),
            stall,
            last_recovery: if self.back.iter().all(Option::is_some) {
                back.max(self.recovered).map(since)
            } else {
                None
            },
            verdict,
            took,
            failures,
            kept: None,
            is_whole: false,
        })
    }
}
