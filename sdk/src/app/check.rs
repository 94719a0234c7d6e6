//! What can be refused before anything is consumed: every mismatch, not the first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::sharing::{self, Places};
use crate::config::{Config, Resolved};
use crate::contract::{Broker, Capabilities, Guarantee, Order, Sharing, Source, Spec, Start, names};
use crate::engine::Registration;
use crate::listener::{AckMode, StateMap};

/// A listener as it will run.
pub(super) struct Planned {
    pub(super) registration: Registration,
    pub(super) resolved: Resolved,
    /// The broker's name; empty for the one in `BROKER_URL`.
    pub(super) broker: String,
    pub(super) spec: Spec,
    pub(super) in_flight: usize,
}

impl Planned {
    /// Retries wait in the process, unsettled.
    pub(super) fn in_process(&self) -> bool {
        self.spec.order == Order::ByKey || self.spec.sharing == Sharing::Broadcast
    }

    /// Messages that were handled before are told.
    pub(super) fn has_dedup(&self) -> bool {
        self.resolved.settings.dedup.is_some()
    }

    pub(super) fn dead_letter(&self) -> Arc<str> {
        self.spec.dead_letter.clone().unwrap_or_else(|| "".into())
    }
}

/// Names, topics and groups, before any socket is opened.
pub(super) fn plan(
    registrations: Vec<Registration>,
    config: &Config,
    application: &str,
    state: &StateMap,
    problems: &mut Vec<String>,
) -> Vec<Planned> {
    let known: Vec<&str> = registrations
        .iter()
        .map(|registration| registration.settings.name)
        .collect();
    problems.extend(config.unknown(&known));
    let mut seen = HashMap::new();
    for registration in &registrations {
        let module = registration.settings.module;
        if let Some(other) = seen.insert(registration.settings.name, module) {
            problems.push(format!(
                "two listeners are named `{}` (in {other} and {module}): names are unique within an app",
                registration.settings.name
            ));
        }
    }
    let planned: Vec<Planned> = registrations
        .into_iter()
        .map(|registration| one(registration, config, application, problems))
        .filter(|planned| planned.resolved.settings.enabled)
        .collect();
    for planned in &planned {
        let mut missing = Vec::new();
        (planned.registration.check)(state, &mut missing);
        problems.extend(missing.into_iter().map(|what| complaint(planned, &what)));
    }
    problems.extend(sharing::problems(&planned, &Places::new()));
    planned
}

/// A listener's addresses: its topic, its group, and where it gives messages up to.
pub(super) fn addresses(resolved: &Resolved, application: &str) -> (Arc<str>, Arc<str>, Arc<str>) {
    let topic: Arc<str> = resolved.settings.topic.into();
    let group: Arc<str> = resolved.group.as_deref().unwrap_or(application).into();
    let dead_letter = match &resolved.dead_letter {
        Some(given) => given.as_str().into(),
        None => names::dead_letter_topic(&topic, &group).into(),
    };
    (topic, group, dead_letter)
}

fn one(
    registration: Registration,
    config: &Config,
    application: &str,
    problems: &mut Vec<String>,
) -> Planned {
    let resolved = config.resolve(&registration.settings, problems);
    let settings = &resolved.settings;
    let (topic, group, dead_letter) = addresses(&resolved, application);
    let batch = settings.batch.map_or(0, |batch| batch.size);
    let in_flight = settings
        .prefetch
        .unwrap_or_else(|| 64.max(settings.concurrency * 4).max(batch * 2));
    let in_process = settings.ordered || settings.broadcast;
    let spec = Spec {
        listener: settings.name.into(),
        source: Source::Topic(topic),
        group,
        sharing: if settings.broadcast {
            Sharing::Broadcast
        } else {
            Sharing::Group
        },
        order: if settings.ordered {
            Order::ByKey
        } else {
            Order::None
        },
        start: settings.start,
        in_flight,
        dead_letter: Some(dead_letter),
        max_delay: (settings.retry.attempts > 1 && !in_process).then_some(settings.retry.backoff.cap),
        publishes: settings.publish.iter().map(|&topic| topic.into()).collect(),
    };
    let broker = settings.broker.unwrap_or_default().to_owned();
    let planned = Planned {
        broker,
        spec,
        in_flight: in_flight as usize,
        resolved,
        registration,
    };
    let spec = &planned.spec;
    let mut wrong = Vec::new();
    wrong.extend(
        names::check_topic(spec.topic())
            .err()
            .map(|error| error.to_string()),
    );
    wrong.extend(
        names::check_group(&spec.group)
            .err()
            .map(|error| error.to_string()),
    );
    wrong.extend(
        names::check_topic(&planned.dead_letter())
            .err()
            .map(|error| format!("its dead-letter topic: {error}")),
    );
    if planned.dead_letter() == *spec.topic() {
        wrong.push(
            "its dead-letter topic is its own topic: a dead letter would come back for ever".to_owned(),
        );
    }
    let dead_letters = planned.dead_letter();
    if names::is_reserved(&dead_letters) && !dead_letters.ends_with(".dlq") {
        wrong.push(format!(
            "its dead-letter topic `{dead_letters}` ends like an internal topic, which nobody reads: name another"
        ));
    }
    if batch as usize > planned.in_flight {
        wrong.push(format!(
            "a batch of {batch} is never full with a prefetch of {in_flight}: raise `prefetch`"
        ));
    }
    wrong.extend(without_dedup(&planned));
    if planned.resolved.settings.broadcast && planned.resolved.dead_letter.is_some() {
        wrong.push(
            "`dead_letter` and `broadcast` exclude each other, as every instance would send a copy: leave `dead_letter` out"
                .to_owned(),
        );
    }
    problems.extend(wrong.iter().map(|what| complaint(&planned, what)));
    planned
}

/// What excludes `dedup`: the attribute refuses it where it stands there, but configuration may add it.
fn without_dedup(planned: &Planned) -> Option<String> {
    let settings = &planned.resolved.settings;
    let others = [
        ("ack = manual", settings.ack == AckMode::Manual),
        ("batch", settings.batch.is_some()),
        ("broadcast", settings.broadcast),
    ];
    let (other, _) = others.into_iter().find(|(_, is)| *is && planned.has_dedup())?;
    Some(format!(
        "`dedup_window` and `{other}` exclude each other: leave `dedup_window` out"
    ))
}

/// What the listener asks and the broker cannot do.
pub(super) fn against_capabilities(
    planned: &[Planned],
    brokers: &BTreeMap<String, Arc<dyn Broker>>,
    problems: &mut Vec<String>,
) {
    for listener in planned {
        let Some(broker) = brokers.get(&listener.broker) else {
            continue;
        };
        let mut wrong = Vec::new();
        mismatches(listener, broker.capabilities(), &mut wrong);
        problems.extend(wrong.iter().map(|what| complaint(listener, what)));
    }
}

fn mismatches(listener: &Planned, can: &Capabilities, wrong: &mut Vec<String>) {
    let Planned { spec, resolved, .. } = listener;
    let settings = &resolved.settings;
    let system = can.system;
    if settings.ordered && !can.ordered {
        wrong.push(format!(
            "`ordered` cannot be kept on {system}: leave it out, or use a broker that keeps order"
        ));
    }
    if settings.broadcast && !can.broadcast {
        wrong.push(format!(
            "`broadcast` is not possible on {system}: give each instance a group of its own"
        ));
    }
    if settings.start == Start::Earliest && !can.earliest {
        wrong.push(format!("`start = earliest` needs retained history, which {system} as configured has none of: leave it out"));
    }
    if let (true, Guarantee::AtMostOnce(why)) = (settings.at_least_once, &can.guarantee) {
        wrong.push(format!("`delivery = at_least_once` cannot be kept: {why}"));
    }
    if let Some(delay) = spec.max_delay.filter(|&delay| delay > can.max_delay) {
        wrong.push(format!(
            "a backoff of up to {} is longer than the {} that {system} can delay: lower it",
            humantime::format_duration(delay),
            humantime::format_duration(can.max_delay)
        ));
    }
    let held = if listener.in_process() {
        longest_hold(listener)
    } else {
        settings.timeout.unwrap_or_default()
    };
    let rest = settings.breaker.map(|breaker| breaker.pause).unwrap_or_default();
    let held = held.max(rest + settings.timeout.unwrap_or_default());
    if let Some(limit) = can.max_hold.filter(|&limit| held > limit) {
        wrong.push(format!(
            "a message may stay unsettled for {}, longer than the {} that {system} allows: lower `timeout`, \
             attempts, backoff or the breaker's `pause`",
            humantime::format_duration(held),
            humantime::format_duration(limit)
        ));
    }
    // What waits for the rate is not settled either.
    if let (Some(limit), Some(rate)) = (can.max_hold, settings.rate)
        && let Some(each) = rate.per.checked_div(rate.count)
        && let held = each.saturating_mul(spec.in_flight)
        && held > limit
    {
        let most = (limit.as_secs_f64() / each.as_secs_f64()).max(1.0) as u32;
        wrong.push(format!(
            "at its `rate` the last of {} messages would stay unsettled for {}, longer than the {} that {system} allows: \
             set `prefetch` to at most {most}",
            spec.in_flight,
            humantime::format_duration(held),
            humantime::format_duration(limit)
        ));
    }
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

pub(super) fn complaint(listener: &Planned, what: &str) -> String {
    format!("listener `{}`: {what}", listener.spec.listener)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::contract::Bytes;
    use crate::{Acker, listener};

    #[listener(topic = "check.order", group = "manual", ack = manual)]
    async fn manual(_: Bytes, _ack: Acker) {}

    #[listener(topic = "check.order", group = "batch", batch(size = 2, wait = "1s"))]
    async fn batch(_: Vec<Bytes>) {}

    #[listener(topic = "check.order", group = "copies", broadcast)]
    async fn copies(_: Bytes) {}

    #[listener(topic = "check.order", group = "plain")]
    async fn plain(_: Bytes) {}

    pub(in crate::app) fn planned_with(listeners: Vec<Registration>) -> (Vec<Planned>, Vec<String>) {
        let mut problems = Vec::new();
        let state = StateMap::default();
        let planned = plan(listeners, &Config::default(), "shop", &state, &mut problems);
        (planned, problems)
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

    /// What is wrong with a listener on the embedded broker with other abilities.
    fn wrong_with(listener: Registration, change: impl Fn(&mut Capabilities)) -> Vec<String> {
        let (planned, _) = planned_with(vec![listener]);
        let client = crate::contract::Client {
            application: "check".into(),
            instance: "1".into(),
        };
        let mut can = postrider_memory::isolated(client).capabilities().clone();
        change(&mut can);
        let mut wrong = Vec::new();
        mismatches(&planned[0], &can, &mut wrong);
        wrong
    }

    fn holding_for(limit: Duration, listener: Registration) -> Vec<String> {
        wrong_with(listener, |can| can.max_hold = Some(limit))
    }

    #[listener(topic = "check.order", delivery = at_least_once)]
    async fn sure(_: Bytes) {}

    #[test]
    fn who_asks_for_at_least_once_is_not_put_off_with_less() {
        let listener = || crate::listeners![sure].remove(0);
        assert!(wrong_with(listener(), |_| ()).is_empty());
        let wrong = wrong_with(listener(), |can| {
            can.guarantee = Guarantee::AtMostOnce("nobody keeps it".into());
        });
        assert_eq!(
            wrong,
            ["`delivery = at_least_once` cannot be kept: nobody keeps it"]
        );
    }

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

    #[test]
    fn configuration_cannot_add_dedup_where_the_attribute_could_not() {
        let names = ["manual", "batch", "copies", "plain"];
        let window = |name: &&str| {
            (
                format!("POSTRIDER__{}__DEDUP_WINDOW", name.to_uppercase()),
                "1h".to_owned(),
            )
        };
        let config = Config::of_variables(names.iter().map(window));
        let mut problems = Vec::new();
        let listeners = crate::listeners![manual, batch, copies, plain];
        plan(listeners, &config, "shop", &StateMap::default(), &mut problems);
        let expected = [
            ("manual", "ack = manual"),
            ("batch", "batch"),
            ("copies", "broadcast"),
        ]
        .map(|(name, other)| {
            format!(
                "listener `{name}`: `dedup_window` and `{other}` exclude each other: leave `dedup_window` out"
            )
        });
        assert_eq!(problems, expected);
    }

    #[test]
    fn configuration_gives_no_dead_letter_topic_that_the_attribute_could_not() {
        for (listener, topic, expected) in [
            (
                "plain",
                "check.order.plain.retry",
                Some("ends like an internal topic"),
            ),
            ("plain", "check.order.inbox", Some("ends like an internal topic")),
            ("plain", "check.order.failed", None),
            ("plain", "check.order.failed.dlq", None),
            (
                "copies",
                "check.order.failed",
                Some("`dead_letter` and `broadcast` exclude each other"),
            ),
        ] {
            let variable = format!("POSTRIDER__{}__DEAD_LETTER", listener.to_uppercase());
            let config = Config::of_variables([(variable, topic.to_owned())].into_iter());
            let mut problems = Vec::new();
            let listeners = crate::listeners![plain, copies];
            plan(listeners, &config, "shop", &StateMap::default(), &mut problems);
            let found = problems.iter().map(|problem| {
                problem.starts_with(&format!("listener `{listener}`: "))
                    && expected.is_some_and(|expected| problem.contains(expected))
            });
            let found: Vec<bool> = found.collect();
            assert_eq!(
                found,
                vec![true; usize::from(expected.is_some())],
                "{topic}: {problems:?}"
            );
        }
    }
}
