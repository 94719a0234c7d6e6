use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Context;
use super::told::told;
use crate::contract::Outgoing;
use crate::{Message, publisher};

/// What a handler decided.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// Done with it. What is in `emit` is published and confirmed before the acknowledgement.
    Ack {
        /// Usually empty, and then owns nothing.
        emit: Vec<Outgoing>,
    },
    /// It failed: tried again, or dead-lettered, as the error and the listener's policy say.
    Failed(HandlerError),
    /// Deliver it again soon; the attempt is not used up. It waits for 100 ms in this process, and goes to another one only
    /// where this one ends.
    Release,
}

impl Outcome {
    /// Done with it.
    pub const ACK: Self = Self::Ack { emit: Vec::new() };
}

/// Why a handler failed, and whether trying again can help.
///
/// Anything that converts into a boxed error is *retryable* by `?`: an error of `std`, of a library, of `anyhow`, a text.
/// Say [`HandlerError::permanent`] of what will never succeed: it is dead-lettered at once.
///
/// ```
/// use postrider::HandlerError;
///
/// fn check(quantity: i64) -> Result<(), HandlerError> {
///     if quantity < 0 {
///         return Err(HandlerError::permanent("a negative quantity"));
///     }
///     std::fs::metadata("/")?; // retryable
///     Ok(())
/// }
/// # check(1).unwrap();
/// ```
///
/// Of an error type of your own, `map_err` says which of its cases are permanent:
///
/// ```
/// # use postrider::HandlerError;
/// # #[derive(Debug)] enum ChargeError { CardRefused, GatewayDown }
/// # impl std::fmt::Display for ChargeError {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("refused") }
/// # }
/// # impl std::error::Error for ChargeError {}
/// # fn charge() -> Result<(), ChargeError> { Err(ChargeError::CardRefused) }
/// fn judged(error: ChargeError) -> HandlerError {
///     match error {
///         ChargeError::CardRefused => HandlerError::permanent(error),
///         ChargeError::GatewayDown => error.into(),
///     }
/// }
/// # fn handle() -> Result<(), HandlerError> {
/// charge().map_err(judged)?;
/// # Ok(())
/// # }
/// # assert!(!handle().unwrap_err().is_retryable());
/// ```
pub struct HandlerError(Box<Inner>);

struct Inner {
    reason: Reason,
    retry_after: Option<Duration>,
    error: Box<dyn std::error::Error + Send + Sync>,
}

/// Why a delivery failed: in dead letters as `postrider-dead-reason`, in metrics as `error.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The handler returned a retryable error.
    Error,
    /// The handler returned a permanent error.
    Permanent,
    /// The payload did not decode.
    Decode,
    /// An extractor refused.
    Rejected,
    /// The payload is over the listener's size limit.
    TooLarge,
    /// The handler panicked.
    Panic,
    /// The handler ran past its timeout.
    Timeout,
    /// A manual handler ended without settling.
    Unsettled,
    /// Delivered again and again without a verdict: it probably kills the process.
    CrashLoop,
}

impl Reason {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Error,
        Self::Permanent,
        Self::Decode,
        Self::Rejected,
        Self::TooLarge,
        Self::Panic,
        Self::Timeout,
        Self::Unsettled,
        Self::CrashLoop,
    ];

    /// The word for headers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Permanent => "permanent",
            Self::Decode => "decode",
            Self::Rejected => "rejected",
            Self::TooLarge => "too_large",
            Self::Panic => "panic",
            Self::Timeout => "timeout",
            Self::Unsettled => "unsettled",
            Self::CrashLoop => "crash_loop",
        }
    }

    /// Whether trying again can help.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Error | Self::Panic | Self::Timeout | Self::Unsettled)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl HandlerError {
    /// Trying again may help: the backoff, then another attempt.
    pub fn retryable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::with_reason(Reason::Error, error)
    }

    /// Trying again cannot help: dead-lettered at once.
    pub fn permanent(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::with_reason(Reason::Permanent, error)
    }

    /// Trying again may help after this time, which stands instead of the listener's backoff (as an HTTP 429 asks for).
    ///
    /// It is cut, which the log says, to what the broker can delay; in an `ordered` or `broadcast` listener, whose retries stay
    /// unsettled, to its share of the time that the broker allows for all attempts together, or to the backoff's longest wait
    /// where that is more.
    pub fn retry_after(wait: Duration, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let mut this = Self::retryable(error);
        this.0.retry_after = Some(wait);
        this
    }

    /// A failure of this kind.
    pub fn with_reason(reason: Reason, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(Box::new(Inner {
            reason,
            retry_after: None,
            error: error.into(),
        }))
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// Whether trying again can help.
    pub fn is_retryable(&self) -> bool {
        self.0.reason.is_retryable()
    }

    /// The wait that the handler asked for.
    pub fn asked_wait(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

/// The error's text followed by those of its causes, on one line and cut after about 4,000 bytes.
impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&told(&*self.0.error))
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.0.reason)
    }
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::retryable(error)
    }
}

/// What a handler may return: `()`, `Result<(), E>` with any error, or an [`Outcome`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no outcome of a listener",
    label = "a listener cannot return this",
    note = "return `()`, `Result<(), HandlerError>` (or another error type) or `Outcome`",
    note = "to publish what the handler returns, write `publish = \"a.topic\"` in its attribute"
)]
pub trait IntoOutcome {
    /// As an outcome.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::ACK
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl<T: IntoOutcome, E: Into<HandlerError>> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(value) => value.into_outcome(),
            Err(error) => Outcome::Failed(error.into()),
        }
    }
}

/// What a handler with `publish = "…"` may return: a serializable message, an `Option` of one, or a `Result` with one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be published",
    label = "`publish` sends what the handler returns, and this cannot be sent",
    note = "return a type with `#[derive(Message, Serialize)]`, an `Option` of one, or a `Result` with one"
)]
pub trait IntoReply {
    /// Where messages of this type are published to, where the type says it.
    const REPLY_TOPIC: Option<&'static str> = None;

    /// As an outcome that publishes to `topic` before the acknowledgement.
    fn into_reply(self, topic: &'static str, cx: &Context) -> Outcome;
}

#[diagnostic::do_not_recommend]
impl<M: Message + Serialize> IntoReply for M {
    const REPLY_TOPIC: Option<&'static str> = Some(M::TOPIC);

    fn into_reply(self, topic: &'static str, _cx: &Context) -> Outcome {
        let message = || {
            let topic = publisher::known_topic(topic)?;
            Ok::<_, crate::Error>(Outgoing::to_topic(
                topic,
                publisher::encode(&self, publisher::now())?,
            ))
        };
        match message() {
            Ok(message) => Outcome::Ack { emit: vec![message] },
            Err(error) => Outcome::Failed(HandlerError::permanent(error)),
        }
    }
}

impl<M: IntoReply> IntoReply for Option<M> {
    const REPLY_TOPIC: Option<&'static str> = M::REPLY_TOPIC;

    fn into_reply(self, topic: &'static str, cx: &Context) -> Outcome {
        self.map_or(Outcome::ACK, |message| message.into_reply(topic, cx))
    }
}

impl<M: IntoReply, E: Into<HandlerError>> IntoReply for Result<M, E> {
    const REPLY_TOPIC: Option<&'static str> = M::REPLY_TOPIC;

    fn into_reply(self, topic: &'static str, cx: &Context) -> Outcome {
        match self {
            Ok(message) => message.into_reply(topic, cx),
            Err(error) => Outcome::Failed(error.into()),
        }
    }
}

/// What a handler with `batch(…)` may return: `()` or `Result<(), E>` for all of them, or a `Vec` with one result for
/// each item, in the same order.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no outcome of a batch listener",
    label = "a batch listener cannot return this",
    note = "return `()`, `Result<(), HandlerError>` for the whole batch, or `Vec<Result<(), HandlerError>>` for each item"
)]
pub trait IntoBatchOutcome {
    /// One outcome for each of `count` items.
    fn into_outcomes(self, count: usize) -> Vec<Outcome>;
}

impl IntoBatchOutcome for () {
    fn into_outcomes(self, count: usize) -> Vec<Outcome> {
        (0..count).map(|_| Outcome::ACK).collect()
    }
}

impl<E: Into<HandlerError>> IntoBatchOutcome for Result<(), E> {
    fn into_outcomes(self, count: usize) -> Vec<Outcome> {
        match self {
            Ok(()) => ().into_outcomes(count),
            Err(error) => {
                let error = error.into();
                let text = error.to_string();
                let same = |_| {
                    let mut copy = HandlerError::with_reason(error.reason(), text.clone());
                    copy.0.retry_after = error.asked_wait();
                    Outcome::Failed(copy)
                };
                (0..count).map(same).collect()
            }
        }
    }
}

impl<O: IntoOutcome> IntoBatchOutcome for Vec<O> {
    fn into_outcomes(self, count: usize) -> Vec<Outcome> {
        let given = self.len();
        if given != count {
            let text = format!("the handler returned {given} results for a batch of {count}");
            return Result::<(), _>::Err(HandlerError::retryable(text)).into_outcomes(count);
        }
        self.into_iter().map(IntoOutcome::into_outcome).collect()
    }
}
