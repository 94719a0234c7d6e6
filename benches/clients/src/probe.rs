//! What handlers tell, and what publishers are told: the same on every side of a comparison.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use postrider::prelude::{Deserialize, Serialize};
use tokio::sync::Notify;

/// Counts what is handled, and times it from one message to the last: the first fifth is start-up.
pub(crate) struct Probe {
    seen: AtomicU64,
    first: u64,
    last: u64,
    begun: OnceLock<Mark>,
    ended: OnceLock<Mark>,
    done: Notify,
    /// In nanoseconds, of messages with this author.
    latencies: Option<(&'static str, Mutex<Vec<u64>>)>,
}

impl Probe {
    pub(crate) fn new(count: u64) -> Self {
        Self {
            seen: AtomicU64::new(0),
            first: (count / 5).max(1),
            last: count,
            begun: OnceLock::new(),
            ended: OnceLock::new(),
            done: Notify::new(),
            latencies: None,
        }
    }

    /// One that also notes how long each message of this author took from when it should have been sent.
    pub(crate) fn with_latencies(count: u64, author: &'static str) -> Self {
        Self {
            latencies: Some((author, Mutex::new(Vec::with_capacity(count as usize)))),
            ..Self::new(count)
        }
    }

    /// A message is handled; true if it was the last.
    pub(crate) fn handle(&self, payload: &[u8]) -> bool {
        std::hint::black_box(payload);
        let number = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        if number == self.first {
            let _ = self.begun.set(Mark::now());
        }
        if let Some((author, latencies)) = &self.latencies
            && number > self.first
        {
            let sample: Sample = serde_json::from_slice(payload).unwrap();
            if sample.body.starts_with(*author) {
                latencies.lock().unwrap().push(clock().saturating_sub(sample.at));
            }
        }
        if number == self.last {
            let _ = self.ended.set(Mark::now());
            self.done.notify_one();
        }
        number >= self.last
    }

    pub(crate) async fn finished(&self) {
        if self.ended.get().is_none() {
            self.done.notified().await;
        }
    }

    pub(crate) fn cost(&self) -> Cost {
        let (begun, ended) = (self.begun.get().unwrap(), self.ended.get().unwrap());
        begun.to(ended, self.last - self.first)
    }

    /// In microseconds, at each of these quantiles.
    pub(crate) fn quantiles(&self, at: &[f64]) -> Vec<f64> {
        let (_, latencies) = self.latencies.as_ref().unwrap();
        let mut all = latencies.lock().unwrap().clone();
        all.sort_unstable();
        let place = |quantile: &f64| all[((all.len() - 1) as f64 * quantile) as usize] as f64 / 1000.0;
        at.iter().map(place).collect()
    }
}

/// Nanoseconds since the program's first look at the clock.
pub(crate) fn clock() -> u64 {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    BEGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// What is sent: JSON of about the size that is asked for.
#[derive(postrider::Message, Serialize, Deserialize, Clone)]
#[message(topic = "bench.load")]
pub(crate) struct Sample {
    /// When it should have been sent, by [`clock`].
    pub(crate) at: u64,
    /// One letter, again and again: who sent it.
    pub(crate) body: String,
}

/// What a publisher has to do.
pub(crate) struct Order {
    pub(crate) count: u64,
    pub(crate) size: usize,
    /// As fast as it goes, or so many in a second.
    pace: Option<(u64, f64)>,
    author: &'static str,
}

impl Order {
    pub(crate) fn at_once(count: u64, size: usize) -> Self {
        Self {
            count,
            size,
            pace: None,
            author: "x",
        }
    }

    /// From this moment on.
    pub(crate) fn paced(count: u64, size: usize, begin: u64, rate: f64, author: &'static str) -> Self {
        Self {
            count,
            size,
            pace: Some((begin, rate)),
            author,
        }
    }

    fn due(&self, number: u64) -> u64 {
        let (begin, rate) = self.pace.unwrap_or((0, f64::INFINITY));
        begin + (number as f64 * 1e9 / rate) as u64
    }

    pub(crate) fn is_due(&self, number: u64) -> bool {
        self.pace.is_none() || self.due(number) <= clock()
    }

    /// Waits until a message is due.
    pub(crate) async fn wait(&self, number: u64) {
        while !self.is_due(number) {
            let left = self.due(number).saturating_sub(clock());
            tokio::time::sleep(Duration::from_nanos(left)).await;
        }
    }

    pub(crate) fn sample(&self, number: u64) -> Sample {
        Sample {
            at: self.due(number),
            // Less what JSON puts around it.
            body: self.author.repeat(self.size.saturating_sub(20)),
        }
    }

    pub(crate) fn payload(&self, number: u64) -> Vec<u8> {
        serde_json::to_vec(&self.sample(number)).unwrap()
    }

    /// What it cost since then.
    pub(crate) fn cost(&self, begun: &Mark) -> Cost {
        begun.to(&Mark::now(), self.count)
    }
}

/// What a handler makes of a message that it publishes again: decoded and encoded, as the SDK does.
pub(crate) fn again(payload: &[u8]) -> Vec<u8> {
    let sample: Sample = serde_json::from_slice(payload).unwrap();
    serde_json::to_vec(&sample).unwrap()
}

/// A moment.
pub(crate) struct Mark {
    at: Instant,
    /// What this process has computed so far, in seconds.
    computed: f64,
}

/// What messages cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Messages in a second.
    pub(crate) rate: f64,
    /// Microseconds that this process computed for each, all threads together: what else the machine does matters little.
    pub(crate) computed: f64,
}

impl Mark {
    pub(crate) fn now() -> Self {
        Self {
            at: Instant::now(),
            computed: computed(),
        }
    }

    fn to(&self, end: &Self, count: u64) -> Cost {
        let count = count as f64;
        Cost {
            rate: count / (end.at - self.at).as_secs_f64(),
            computed: (end.computed - self.computed) * 1e6 / count,
        }
    }
}

/// User and system time of this process, of which Linux tells hundredths of a second; 0 elsewhere.
fn computed() -> f64 {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return 0.0;
    };
    // The name in parentheses may contain anything.
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |place: usize| {
        after
            .split_whitespace()
            .nth(place)
            .and_then(|n| n.parse::<f64>().ok())
    };
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}
