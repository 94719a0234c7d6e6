use std::time::Duration;

use crate::contract::{Backoff, Start};

/// What `#[listener(…)]` says, before configuration overrides it.
#[allow(clippy::struct_excessive_bools, reason = "independent choices, not a state")]
#[derive(Debug, Clone)]
pub struct Settings {
    /// The function's name, unique within an app.
    pub name: &'static str,
    /// The module it stands in.
    pub module: &'static str,
    /// The topic it receives.
    pub topic: &'static str,
    /// The topic that the payload's type names; `None`: it names none.
    pub message_topic: Option<&'static str>,
    /// The consumer group; `None`: the application's name.
    pub group: Option<&'static str>,
    /// The named broker; `None`: the one in `BROKER_URL`.
    pub broker: Option<&'static str>,
    /// How many handlers run at once.
    pub concurrency: u32,
    /// How many deliveries may be unsettled at once; `None`: 4 for each handler that runs at once, or a batch for each and one
    /// more; at least 64.
    pub prefetch: Option<u32>,
    /// When to try again, and how often.
    pub retry: Retry,
    /// How long a handler may take.
    pub timeout: Option<Duration>,
    /// Who acknowledges.
    pub ack: AckMode,
    /// Whether messages of one partition key are handled in order.
    pub ordered: bool,
    /// Whether every instance has its own copy.
    pub broadcast: bool,
    /// Where a new group begins.
    pub start: Start,
    /// Whether to refuse to start where at-least-once delivery cannot be kept.
    pub at_least_once: bool,
    /// Where messages are given up to; `None`: `<topic>.<group>.dlq`.
    pub dead_letter: Option<&'static str>,
    /// Where what the handler returns is published to.
    pub publish: Option<&'static str>,
    /// The topic that the type of what it returns names; `None`: it names none, or nothing is published.
    pub reply_topic: Option<&'static str>,
    /// How deliveries are gathered for a handler that takes a `Vec`.
    pub batch: Option<Batch>,
    /// The most messages that handlers may be given in a time.
    pub rate: Option<Rate>,
    /// When to rest instead of failing again and again.
    pub breaker: Option<Breaker>,
    /// Which messages are known to be handled already.
    pub dedup: Option<Dedup>,
    /// The largest payload in bytes that reaches the handler; `None`: any.
    pub max_size: Option<usize>,
    /// Whether it is started at all.
    pub enabled: bool,
}

impl Settings {
    /// What holds where the attribute says nothing.
    pub const DEFAULT: Self = Self {
        name: "",
        module: "",
        topic: "",
        message_topic: None,
        group: None,
        broker: None,
        concurrency: 1,
        prefetch: None,
        retry: Retry::DEFAULT,
        timeout: None,
        ack: AckMode::Auto,
        ordered: false,
        broadcast: false,
        start: Start::New,
        at_least_once: false,
        dead_letter: None,
        publish: None,
        reply_topic: None,
        batch: None,
        rate: None,
        breaker: None,
        dedup: None,
        max_size: None,
        enabled: true,
    };
}

/// Who acknowledges a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckMode {
    /// The runtime, by what the handler returns.
    Auto,
    /// The handler, through its [`Acker`](crate::Acker).
    Manual,
}

/// When a failed delivery is tried again, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How many attempts in all, from 1 (then: no retry).
    pub attempts: u32,
    /// The wait before each.
    pub backoff: Backoff,
    /// So long after its first failure it is not tried again; `None`: the attempts alone count.
    pub max_age: Option<Duration>,
}

impl Retry {
    /// 5 attempts, 200 ms to 30 s apart.
    pub const DEFAULT: Self = Self {
        attempts: 5,
        backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(30)),
        max_age: None,
    };
}

/// How deliveries are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// At most so many.
    pub size: u32,
    /// Not waiting longer than this after the first.
    pub wait: Duration,
}

/// When a listener rests because what its handler depends on is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// After so many retryable failures in a row.
    pub failures: u32,
    /// So long, and again each time that the one that is tried then fails.
    pub pause: Duration,
}

impl Breaker {
    /// 10 failures, 30 seconds: for what configuration says only a part of.
    pub const DEFAULT: Self = Self {
        failures: 10,
        pause: Duration::from_secs(30),
    };
}

/// How messages that were handled before are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dedup {
    /// For so long after they were handled.
    pub window: Duration,
    /// By this field of a JSON payload; `None`: by the message id.
    pub key: Option<&'static str>,
}

/// So many in a time, such as `500/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In which time.
    pub per: Duration,
}
