//! What becomes of an outcome: acknowledged, tried again, or given up.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::dead_letter;
use super::suspects::{CRASH_LOOP, SUSPECT, Suspects};
use crate::contract::{Delivery, Origin, Outgoing, Value, Verdict, names};
use crate::listener::{HandlerError, Outcome, Reason, Retry};
use crate::meter::What;
use crate::publisher::{millis, stamp};

/// A message that has become a dead letter so often goes round between listeners that take each other's dead letters.
pub(crate) const MOST_HOPS: i64 = 16;
/// How long such a message waits until it is tried again.
const PARKED: Duration = Duration::from_secs(3600);

/// What is released waits so long: it is not to keep a processor busy.
const RELEASED: Duration = Duration::from_millis(100);

/// How a delivery may reach the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Free,
    /// Not beside another such: what it may be the end of is nobody else's then.
    Alone,
}

/// How one listener deals with failure.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) retry: Retry,
    pub(crate) topic: Arc<str>,
    pub(crate) group: Arc<str>,
    pub(crate) application: Arc<str>,
    pub(crate) dead_letter: Arc<str>,
    /// Retries wait in this process, unsettled: ordered and broadcast listeners.
    pub(crate) in_process: bool,
    /// The largest payload that reaches the handler.
    pub(crate) max_size: Option<usize>,
    /// The longest wait: what the broker can delay, or what a delivery may stay unsettled.
    pub(crate) max_delay: Duration,
    pub(crate) clock: Clock,
    pub(crate) suspects: Arc<Suspects>,
}

/// Tells when something failed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clock(Option<(SystemTime, tokio::time::Instant)>);

impl Clock {
    /// Time passes as it does on tokio's clock, which a test moves.
    #[cfg(feature = "testing")]
    pub(crate) fn of_test() -> Self {
        Self(Some((SystemTime::now(), tokio::time::Instant::now())))
    }

    pub(super) fn now(self) -> SystemTime {
        self.0
            .map_or_else(SystemTime::now, |(wall, begin)| wall + begin.elapsed())
    }
}

/// What to do with a delivery.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Settle it.
    Settle(What, Verdict),
    /// Keep it unsettled and try again.
    Hold(Hold),
}

/// How a delivery that is kept unsettled comes again.
#[derive(Debug)]
pub(crate) struct Hold {
    /// What that is counted as.
    pub(crate) what: What,
    pub(crate) wait: Duration,
    /// The attempt that it is then.
    pub(crate) attempt: u32,
}

impl Policy {
    /// Whether the delivery may reach the handler at all.
    #[inline]
    pub(crate) fn admit(&self, delivery: &Delivery) -> Result<Admission, HandlerError> {
        let redeliveries = delivery.redeliveries.unwrap_or(0);
        let most = self.max_size.unwrap_or(usize::MAX);
        if redeliveries <= SUSPECT && delivery.message.payload_size() <= most {
            return Ok(Admission::Free);
        }
        self.look_closer(delivery)
    }

    #[cold]
    fn look_closer(&self, delivery: &Delivery) -> Result<Admission, HandlerError> {
        let redeliveries = delivery.redeliveries.unwrap_or(0);
        if redeliveries > CRASH_LOOP && self.suspects.may_give_up() {
            let text = format!(
                "delivered {redeliveries} times before without a verdict: it probably kills the process"
            );
            return Err(HandlerError::with_reason(Reason::CrashLoop, text));
        }
        let size = delivery.message.payload_size();
        match self.max_size.filter(|&limit| size > limit) {
            Some(limit) => {
                let text = format!("the payload has {size} bytes, over the limit of {limit}");
                Err(HandlerError::with_reason(Reason::TooLarge, text))
            }
            None => Ok(Admission::Alone),
        }
    }

    /// What an outcome leads to. A delivery that is held takes its history with it.
    #[expect(
        clippy::inline_always,
        reason = "a call moves the outcome and the verdict once more"
    )]
    #[inline(always)]
    pub(crate) fn decide(&self, delivery: &mut Delivery, attempt: u32, outcome: Outcome) -> Decision {
        match outcome {
            Outcome::Ack { mut emit } => {
                for outgoing in &mut emit {
                    stamp(&mut outgoing.message);
                }
                Decision::Settle(What::Handled, Verdict::Ack { emit })
            }
            // Given back to the broker it would be back at once, again and again, be counted there as one that kills its
            // process, and come after others of its key that are here. In a drain it goes back all the same.
            Outcome::Release => Decision::Hold(Hold {
                what: What::Released,
                wait: RELEASED,
                attempt,
            }),
            Outcome::Failed(error) => self.failed(delivery, attempt, &error),
        }
    }

    #[cold]
    fn failed(&self, delivery: &mut Delivery, attempt: u32, error: &HandlerError) -> Decision {
        let again =
            error.is_retryable() && attempt < self.retry.attempts && !self.is_too_old(delivery, attempt);
        if again {
            self.again(delivery, attempt, error)
        } else {
            self.give_up(delivery, attempt, error)
        }
    }

    /// Whether its first failure is too long ago to try again.
    fn is_too_old(&self, delivery: &Delivery, attempt: u32) -> bool {
        let Some(limit) = self.retry.max_age else {
            return false;
        };
        let now = self.clock.now();
        let (first_failure, _) = self.history(delivery, attempt, now);
        let age = u128::try_from(millis(now).saturating_sub(first_failure));
        age.is_ok_and(|age| age >= limit.as_millis())
    }

    fn again(&self, delivery: &mut Delivery, attempt: u32, error: &HandlerError) -> Decision {
        let asked = error.asked_wait();
        let wait = asked
            .unwrap_or_else(|| self.retry.backoff.wait(attempt))
            .min(self.max_delay);
        if let Some(asked) = asked.filter(|&asked| asked > wait) {
            tracing::warn!(
                topic = %self.topic, group = %self.group, attempt, ?asked, ?wait,
                message_id = delivery.message.headers.get_str(names::MESSAGE_ID),
                "the handler asks for a longer wait than the broker can keep: it is cut",
            );
        }
        tracing::warn!(
            topic = %self.topic, group = %self.group, attempt, wait = ?wait, reason = %error.reason(),
            message_id = delivery.message.headers.get_str(names::MESSAGE_ID), "will be tried again: {error}",
        );
        if self.in_process {
            let (first_failure, position) = self.history(delivery, attempt, self.clock.now());
            let headers = &mut delivery.message.headers;
            headers.set(names::FIRST_FAILURE, first_failure);
            headers.set(names::POSITION, position);
            return Decision::Hold(Hold {
                what: What::Retried,
                wait,
                attempt: attempt + 1,
            });
        }
        self.come_back(delivery, attempt, attempt + 1, wait)
    }

    /// A copy to the group's own inbox, to be the attempt `next`.
    fn come_back(&self, delivery: &Delivery, attempt: u32, next: u32, wait: Duration) -> Decision {
        let mut copy = delivery.message.clone();
        let (first_failure, position) = self.history(delivery, attempt, self.clock.now());
        copy.headers.set(names::ATTEMPT, next);
        copy.headers.set(names::FIRST_FAILURE, first_failure);
        copy.headers.set(names::POSITION, position);
        copy.headers.set(names::REPLAYS, u32::from(replays(delivery)));
        let due = SystemTime::now() + wait;
        let copy = Outgoing::to_inbox(self.topic.clone(), self.group.clone(), copy).not_before(due);
        Decision::Settle(What::Retried, Verdict::Ack { emit: vec![copy] })
    }

    /// Whether giving it up once more would send it round again. Dead-letter topics by their usual names never lead back,
    /// since each is longer than the topic before it: every circle has a listener that names another one. A count alone proves
    /// nothing, since any producer may write one: this listener has given the message up before.
    fn goes_round(&self, delivery: &Delivery) -> bool {
        dead_letter::hops(&delivery.message) >= MOST_HOPS
            && *self.dead_letter != names::dead_letter_topic(&self.topic, &self.group)
            && dead_letter::was_given_up_by(&delivery.message, &self.topic, &self.group)
    }

    /// Keeps what goes round in the group's own inbox, the attempts used up: neither lost nor sent on.
    fn park(&self, delivery: &Delivery, attempt: u32, error: &HandlerError) -> Decision {
        let wait = PARKED.min(self.max_delay);
        tracing::error!(
            topic = %self.topic, group = %self.group, dead_letter_topic = %self.dead_letter, wait = ?wait,
            message_id = delivery.message.headers.get_str(names::MESSAGE_ID),
            "given up {MOST_HOPS} times, each time to a topic whose listener gave it up again: it stays here and is tried \
             again later; leave out `dead_letter` of this listener to have it given up for good: {error}",
        );
        self.come_back(delivery, attempt, attempt, wait)
    }

    fn give_up(&self, delivery: &Delivery, attempt: u32, error: &HandlerError) -> Decision {
        if self.goes_round(delivery) {
            return self.park(delivery, attempt, error);
        }
        // The reason of the last attempt alone would hide that it was tried more than once.
        let reason = match self.retry.attempts {
            most if error.is_retryable() && attempt < most => "too_old",
            most if error.is_retryable() && most > 1 => "retries_exhausted",
            _ => error.reason().as_str(),
        };
        tracing::error!(
            topic = %self.topic, group = %self.group, attempt, reason, dead_letter_topic = %self.dead_letter,
            message_id = delivery.message.headers.get_str(names::MESSAGE_ID), "given up: {error}",
        );
        let copy = dead_letter::copy(self, delivery, attempt, reason, &error.to_string());
        let copy = Outgoing::to_topic(self.dead_letter.clone(), copy);
        Decision::Settle(What::DeadLettered, Verdict::Ack { emit: vec![copy] })
    }

    /// When the first attempt failed and where the original lay: from the headers only where the return path proves them,
    /// or where it was held here.
    pub(super) fn history(&self, delivery: &Delivery, attempt: u32, now: SystemTime) -> (i64, Value) {
        let headers = &delivery.message.headers;
        let held = self.in_process && attempt > 1;
        let ours = held || matches!(delivery.origin, Origin::ReturnPath { .. });
        let first_failure = headers
            .get(names::FIRST_FAILURE)
            .and_then(Value::as_i64)
            .filter(|_| ours);
        let position = headers.get(names::POSITION).cloned().filter(|_| ours);
        let here = || Value::from(delivery.position.to_string());
        (
            first_failure.unwrap_or_else(|| millis(now)),
            position.unwrap_or_else(here),
        )
    }
}

pub(super) fn replays(delivery: &Delivery) -> u16 {
    match delivery.origin {
        Origin::Topic => 0,
        Origin::ReturnPath { replays, .. } => replays,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Address, Backoff, Message, Position, Token};

    fn policy() -> Policy {
        Policy {
            retry: Retry {
                attempts: 3,
                backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(1)),
                max_age: None,
            },
            topic: "t".into(),
            group: "g".into(),
            application: "a".into(),
            dead_letter: "t.g.dlq".into(),
            in_process: false,
            max_size: Some(10),
            max_delay: Duration::from_secs(60),
            clock: Clock::default(),
            suspects: Arc::default(),
        }
    }

    fn delivery(origin: Origin, message: Message) -> Delivery {
        let token = Token {
            lane: 0,
            epoch: 0,
            seq: 0,
        };
        Delivery {
            token,
            origin,
            redeliveries: None,
            topic: "t".into(),
            position: Position::default(),
            message,
        }
    }

    fn emitted(decision: Decision) -> (What, Outgoing) {
        match decision {
            Decision::Settle(what, Verdict::Ack { mut emit }) => (what, emit.pop().unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn failed() -> Outcome {
        Outcome::Failed("no".into())
    }

    #[test]
    fn a_retry_goes_to_the_inbox_and_the_last_attempt_to_the_dead_letters() {
        let mut first = delivery(Origin::Topic, Message::new("x"));
        let (what, copy) = emitted(policy().decide(&mut first, 1, failed()));
        assert_eq!(what, What::Retried);
        assert_eq!(
            copy.to,
            Address::Inbox {
                topic: "t".into(),
                group: "g".into()
            }
        );
        assert_eq!(
            copy.message.headers.get(names::ATTEMPT).and_then(Value::as_i64),
            Some(2)
        );
        assert!(copy.not_before.is_some_and(|time| time > SystemTime::now()));

        let mut third = delivery(
            Origin::ReturnPath {
                attempt: 3,
                replays: 2,
            },
            copy.message,
        );
        let (what, dead) = emitted(policy().decide(&mut third, 3, failed()));
        assert_eq!(what, What::DeadLettered);
        assert_eq!(dead.to, Address::Topic("t.g.dlq".into()));
        let headers = &dead.message.headers;
        assert_eq!(headers.get_str(names::DEAD_REASON), Some("retries_exhausted"));
        assert_eq!(headers.get(names::DEAD_ATTEMPTS).and_then(Value::as_i64), Some(3));
        assert_eq!(headers.get(names::DEAD_REPLAYS).and_then(Value::as_i64), Some(2));
        assert_eq!(headers.get(names::ATTEMPT), None);
        assert_eq!(dead.message.payload.as_deref(), Some(&b"x"[..]));
    }

    #[test]
    fn what_goes_round_stays_where_it_is_unless_its_dead_letters_lead_nowhere() {
        let gone_round = |hops: i64| {
            let message = Message::new("x")
                .with_header(names::DEAD_HOPS, hops)
                .with_header(names::DEAD_TOPIC, "elsewhere")
                .with_header(names::DEAD_GROUP, "billing")
                .with_header(names::before(names::DEAD_TOPIC), "t")
                .with_header(names::before(names::DEAD_GROUP), "g");
            delivery(Origin::Topic, message)
        };
        let elsewhere = Policy {
            dead_letter: "elsewhere".into(),
            ..policy()
        };
        let (what, copy) = emitted(elsewhere.decide(&mut gone_round(MOST_HOPS), 3, failed()));
        assert_eq!(what, What::Retried);
        assert!(matches!(copy.to, Address::Inbox { .. }));
        let attempt = copy.message.headers.get(names::ATTEMPT);
        assert_eq!(attempt.and_then(Value::as_i64), Some(3), "not used up once more");
        let wait = copy
            .not_before
            .unwrap()
            .duration_since(SystemTime::now())
            .unwrap();
        assert!(wait > Duration::from_secs(50), "not soon: {wait:?}");
        for (policy, hops) in [(&elsewhere, MOST_HOPS - 1), (&policy(), MOST_HOPS)] {
            let (what, _) = emitted(policy.decide(&mut gone_round(hops), 3, failed()));
            assert_eq!(what, What::DeadLettered, "{hops}");
        }
        // Any producer may write a count.
        let forged = Message::new("x").with_header(names::DEAD_HOPS, MOST_HOPS);
        let (what, _) = emitted(elsewhere.decide(&mut delivery(Origin::Topic, forged), 3, failed()));
        assert_eq!(what, What::DeadLettered);
    }

    #[test]
    fn headers_of_a_producer_are_not_trusted() {
        let spoofed = Message::new("x")
            .with_header(names::FIRST_FAILURE, 5i64)
            .with_header(names::POSITION, "moon");
        let (_, dead) = emitted(policy().decide(
            &mut delivery(Origin::Topic, spoofed),
            1,
            Outcome::Failed(HandlerError::permanent("no")),
        ));
        let headers = &dead.message.headers;
        assert_ne!(
            headers.get(names::DEAD_FIRST_FAILURE).and_then(Value::as_i64),
            Some(5)
        );
        assert_eq!(headers.get_str(names::DEAD_POSITION), Some("0"));
        assert_eq!(headers.get_str(names::DEAD_REASON), Some("permanent"));
    }

    #[test]
    fn crash_loops_and_oversize_are_not_admitted() {
        let mut looping = delivery(Origin::Topic, Message::new("x"));
        looping.redeliveries = Some(CRASH_LOOP);
        assert_eq!(policy().admit(&looping).unwrap(), Admission::Alone);
        looping.redeliveries = Some(CRASH_LOOP + 1);
        let policy = policy();
        assert_eq!(policy.admit(&looping).unwrap_err().reason(), Reason::CrashLoop);
        // What was fetched beside it came as often.
        assert_eq!(policy.admit(&looping).unwrap(), Admission::Alone);
        let large = delivery(Origin::Topic, Message::new("01234567890"));
        assert_eq!(policy.admit(&large).unwrap_err().reason(), Reason::TooLarge);
    }
}
