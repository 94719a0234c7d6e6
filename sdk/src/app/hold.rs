//! How long messages stay unsettled, and whether the broker lets them.

use std::time::Duration;

use humantime::format_duration;

use super::check::Planned;
use crate::contract::Capabilities;

/// What stays unsettled for longer than the broker allows for certain, or by the attempts at one message alone.
pub(super) fn mismatches(listener: &Planned, can: &Capabilities) -> Vec<String> {
    let (settings, spec, system) = (&listener.resolved.settings, &listener.spec, can.system);
    let Some(limit) = can.max_hold else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    let held = if listener.in_process() {
        longest_hold(listener)
    } else {
        settings.timeout.unwrap_or_default()
    };
    let rest = settings.breaker.map(|breaker| breaker.pause).unwrap_or_default();
    let held = held.max(rest + settings.timeout.unwrap_or_default());
    if held > limit {
        wrong.push(format!(
            "a message may stay unsettled for {}, longer than the {} that {system} allows: lower `timeout`, \
             attempts, backoff or the breaker's `pause`",
            format_duration(held),
            format_duration(limit)
        ));
    }
    // What waits for the rate is not settled either.
    if let Some(rate) = settings.rate
        && let Some(each) = rate.per.checked_div(rate.count)
        && let held = each.saturating_mul(spec.in_flight)
        && held > limit
    {
        let most = times(each, limit);
        wrong.push(format!(
            "at its `rate` the last of {} messages would stay unsettled for {}, longer than the {} that {system} allows: \
             set `prefetch` to at most {most}",
            spec.in_flight,
            format_duration(held),
            format_duration(limit)
        ));
    }
    wrong
}

/// What stays unsettled for longer than the broker allows only if handlers take as long as they may, or what they depend on is
/// down for long. Refused, this would be most listeners with a `timeout` of some length.
pub(super) fn doubts(listener: &Planned, can: &Capabilities) -> Vec<String> {
    let (settings, in_flight, system) = (&listener.resolved.settings, listener.spec.in_flight, can.system);
    let Some(limit) = can.max_hold else {
        return Vec::new();
    };
    let mut doubts = Vec::new();
    let size = settings.batch.map_or(1, |batch| batch.size);
    let at_once = settings.concurrency.saturating_mul(size);
    if let Some(timeout) = settings.timeout
        && let held = timeout.saturating_mul(in_flight.div_ceil(at_once))
        && held > limit
        && timeout <= limit
    {
        doubts.push(format!(
            "if handlers take as long as their `timeout` of {} allows, the last of {in_flight} messages stays unsettled for {}, \
             longer than the {} that {system} allows, and comes again: set `prefetch` to at most {}, or to more with a higher \
             `concurrency`, or lower `timeout`",
            format_duration(timeout),
            format_duration(held),
            format_duration(limit),
            times(timeout, limit).saturating_mul(at_once),
        ));
    }
    // One message is tried in each pause.
    if let Some(pause) = settings.breaker.map(|breaker| breaker.pause)
        && let held = pause.saturating_mul(in_flight)
        && held > limit
        && pause <= limit
    {
        let most = times(pause, limit);
        // With less a batch is never full.
        let what = if size > most {
            format!("the `size` of a batch and `prefetch`, each to at most {most},")
        } else {
            format!("`prefetch` to at most {most}")
        };
        doubts.push(format!(
            "while its `breaker` is open, the last of {in_flight} messages stays unsettled for up to {}, longer than the {} that \
             {system} allows, and comes again: set {what} or lower `pause`",
            format_duration(held),
            format_duration(limit),
        ));
    }
    doubts
}

/// How often one time goes into another; once at least.
fn times(each: Duration, limit: Duration) -> u32 {
    (limit.as_secs_f64() / each.as_secs_f64()).max(1.0) as u32
}

/// How long a message that fails every time stays unsettled where retries wait in the process.
fn longest_hold(listener: &Planned) -> Duration {
    let settings = &listener.resolved.settings;
    let (attempts, backoff) = (settings.retry.attempts, settings.retry.backoff);
    let mut waits = Duration::ZERO;
    for n in 1..attempts {
        let wait = backoff.ceiling(n);
        if wait >= backoff.cap {
            // And so is each after it.
            waits = waits.saturating_add(wait.saturating_mul(attempts - n));
            break;
        }
        waits = waits.saturating_add(wait);
    }
    let timeout = settings.timeout.unwrap_or_default();
    let most = waits.saturating_add(timeout.saturating_mul(attempts));
    // The last attempt begins at most one wait after the last failure that was young enough.
    let aged = |age: Duration| age.saturating_add(backoff.cap).saturating_add(timeout);
    settings.retry.max_age.map_or(most, |age| most.min(aged(age)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::check::tests::able_to;
    use crate::contract::Bytes;
    use crate::engine::Registration;
    use crate::{listener, listeners};

    fn held_for(
        limit: Duration,
        listener: Registration,
        ask: fn(&Planned, &Capabilities) -> Vec<String>,
    ) -> Vec<String> {
        let (planned, can) = able_to(listener, |can| can.max_hold = Some(limit));
        ask(&planned, &can)
    }

    fn holding_for(limit: Duration, listener: Registration) -> Vec<String> {
        held_for(limit, listener, mismatches)
    }

    #[listener(topic = "check.order", rate = "1/h")]
    async fn seldom(_: Bytes) {}

    #[listener(
        topic = "check.order",
        ordered,
        retry(attempts = 4294967295, backoff = "1s..1m", max_age = "10m"),
        timeout = "10s"
    )]
    async fn stubborn(_: Bytes) {}

    #[test]
    fn what_would_wait_for_the_rate_for_too_long_is_told() {
        let day = Duration::from_secs(24 * 3600);
        let listener = || crate::listeners![seldom].remove(0);
        let wrong = holding_for(day, listener());
        assert!(
            wrong.len() == 1 && wrong[0].contains("set `prefetch` to at most 24"),
            "{wrong:?}"
        );
        assert!(holding_for(3 * day, listener()).is_empty());
    }

    #[test]
    fn any_number_of_attempts_is_added_up_at_once() {
        let listener = || crate::listeners![stubborn].remove(0);
        let begin = std::time::Instant::now();
        assert_eq!(holding_for(Duration::from_secs(600), listener()).len(), 1);
        assert!(holding_for(Duration::from_secs(900), listener()).is_empty());
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }

    #[listener(topic = "hold.order", timeout = "10m")]
    async fn slow(_: Bytes) {}

    #[listener(topic = "hold.order", timeout = "10m", batch(size = 100, wait = "1s"))]
    async fn slow_batches(_: Vec<Bytes>) {}

    #[listener(topic = "hold.order", breaker(failures = 10, pause = "30s"))]
    async fn rests(_: Bytes) {}

    #[listener(
        topic = "hold.order",
        breaker(failures = 10, pause = "30s"),
        batch(size = 10, wait = "1s")
    )]
    async fn rests_in_batches(_: Vec<Bytes>) {}

    #[listener(
        topic = "hold.order",
        breaker(failures = 10, pause = "30s"),
        batch(size = 100, wait = "1s")
    )]
    async fn rests_in_large_batches(_: Vec<Bytes>) {}

    /// Its rate is what it waits for: more batches than two would stay unsettled for too long.
    #[listener(
        topic = "hold.order",
        rate = "1000/h",
        concurrency = 5,
        batch(size = 100, wait = "1s")
    )]
    async fn few_batches(_: Vec<Bytes>) {}

    #[listener(topic = "hold.order")]
    async fn plain(_: Bytes) {}

    #[listener(topic = "hold.order", timeout = "10s", concurrency = 8)]
    async fn usual(_: Bytes) {}

    #[listener(topic = "hold.order", timeout = "1h")]
    async fn refused(_: Bytes) {}

    #[test]
    fn what_may_stay_unsettled_for_too_long_is_told_and_starts() {
        let limit = Duration::from_secs(30 * 60);
        let told = |listener: fn() -> Vec<Registration>| {
            let wrong = holding_for(limit, listener().remove(0));
            assert_eq!(wrong, [""; 0], "it starts");
            held_for(limit, listener().remove(0), doubts)
        };
        assert_eq!(
            told(|| listeners![slow]),
            [
                "if handlers take as long as their `timeout` of 10m allows, the last of 64 messages stays unsettled for 10h 40m, longer \
              than the 30m that memory allows, and comes again: set `prefetch` to at most 3, or to more with a higher \
              `concurrency`, or lower `timeout`"
            ]
        );
        for rests in [|| listeners![rests], || listeners![rests_in_batches]] {
            assert_eq!(
                told(rests),
                [
                    "while its `breaker` is open, the last of 64 messages stays unsettled for up to 32m, longer than the 30m that memory \
              allows, and comes again: set `prefetch` to at most 60 or lower `pause`"
                ]
            );
        }
        let large = told(|| listeners![rests_in_large_batches]);
        assert!(
            large.len() == 1
                && large[0].ends_with(
                    "set the `size` of a batch and `prefetch`, each to at most 60, or lower `pause`"
                ),
            "{large:?}"
        );
        assert_eq!(told(|| listeners![few_batches]), [""; 0]);
        for fine in [
            || listeners![plain],
            || listeners![usual],
            || listeners![slow_batches],
        ] {
            assert_eq!(told(fine), [""; 0]);
        }
        let less = Duration::from_secs(15 * 60);
        assert!(
            held_for(less, listeners![slow_batches].remove(0), doubts)[0]
                .contains("`prefetch` to at most 100,")
        );
        // What is refused is not doubted besides.
        assert_eq!(holding_for(limit, listeners![refused].remove(0)).len(), 1);
        assert_eq!(held_for(limit, listeners![refused].remove(0), doubts), [""; 0]);
    }
}
