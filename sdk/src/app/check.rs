//! What can be refused before anything is consumed: every mismatch, not the first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::hold;
use super::sharing::{self, Places};
use crate::config::{Config, Resolved};
use crate::connect;
use crate::contract::{Broker, Capabilities, Guarantee, Order, Sharing, Source, Spec, names};
use crate::engine::Registration;
use crate::listener::{AckMode, StateMap};
use crate::meter::Subject;

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
    /// What its series are labelled with, on the broker of this system.
    pub(super) fn subject(&self, system: &'static str) -> Subject<'_> {
        Subject {
            system,
            topic: self.spec.topic(),
            group: &self.spec.group,
            listener: &self.spec.listener,
        }
    }

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
    let in_flight = settings.prefetch.unwrap_or_else(|| {
        // A batch for each handler, and one that is gathered meanwhile. More than two would wait for the rate.
        let handlers = if settings.rate.is_some() {
            1
        } else {
            settings.concurrency
        };
        let batches = batch.saturating_mul(handlers.saturating_add(1));
        64.max(settings.concurrency.saturating_mul(4)).max(batches)
    });
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
    let misnamed = spec.misnamed().into_iter();
    wrong.extend(misnamed.map(|problem| format!("{}; {}", problem.what, problem.help)));
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

/// Handlers that never run for want of messages.
fn idle(planned: &Planned) -> Option<String> {
    let settings = &planned.resolved.settings;
    let batch = settings.batch.map_or(1, |batch| batch.size);
    let busy = settings.concurrency.saturating_mul(batch);
    (busy as usize > planned.in_flight && settings.rate.is_none()).then(|| {
        let Planned { in_flight, .. } = planned;
        let each = settings.batch.map(|_| format!(" batches of {batch}"));
        format!(
            "a `concurrency` of {}{} is never reached with a `prefetch` of {in_flight}: set `prefetch` to at least {busy}",
            settings.concurrency,
            each.unwrap_or_default(),
        )
    })
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

/// Tells of listeners whose topic is not the one that their payload's type names, or that publish what they return to another than
/// its type does. Dead letters are of any type.
pub(super) fn tell_of_other_topics(planned: &[Planned]) {
    for listener in planned {
        let settings = &listener.resolved.settings;
        if let (Some(topic), Some(other)) = (settings.publish, settings.reply_topic)
            && topic != other
        {
            tracing::warn!(
                "listener `{}` publishes what it returns to `{topic}`, and who listens for its type listens to `{other}`: they \
                 receive none of these",
                listener.spec.listener
            );
        }
        let topic = listener.spec.topic();
        let Some(other) = settings.message_topic else {
            continue;
        };
        let is_dead_letter =
            names::is_dead_letter_topic(topic) || planned.iter().any(|other| other.dead_letter() == *topic);
        if other != &**topic && !is_dead_letter {
            tracing::warn!(
                "listener `{}` listens to `{topic}`, and what its payload's type is published to is `{other}`: it receives \
                 none of these; where that is meant, take `Json<…>` of the type",
                listener.spec.listener
            );
        }
    }
}

/// Tells of listeners whose group nobody gave, where the broker may have others of that name.
pub(super) fn tell_of_files_name(planned: &[Planned], urls: &BTreeMap<String, String>) {
    let is_shared = |name: &str| urls.get(name).is_some_and(|url| !connect::is_memory(url));
    let unnamed: Vec<&Planned> = planned
        .iter()
        .filter(|listener| listener.resolved.group.is_none() && !listener.resolved.settings.broadcast)
        .filter(|listener| is_shared(&listener.broker))
        .collect();
    let Some(first) = unnamed.first() else {
        return;
    };
    let names = unnamed
        .iter()
        .map(|listener| format!("`{}`", listener.spec.listener));
    tracing::warn!(
        "the group of {} is `{}`, the name of this program's file: another of that name would share its messages, and a file \
         that is renamed begins a group of its own; give the app a name with `.name(…)` or POSTRIDER__APP__NAME",
        names.collect::<Vec<_>>().join(", "),
        first.spec.group
    );
}

/// What the listener asks and the broker cannot do, but for a start at the earliest: the adapter knows what would help.
/// What it may fail to do is logged.
pub(super) fn against_capabilities(
    planned: &[Planned],
    brokers: &BTreeMap<String, Arc<dyn Broker>>,
    problems: &mut Vec<String>,
) {
    for listener in planned {
        let Some(broker) = brokers.get(&listener.broker) else {
            continue;
        };
        let doubts = hold::doubts(listener, broker.capabilities());
        for doubt in doubts.into_iter().chain(idle(listener)) {
            tracing::warn!("{}", complaint(listener, &doubt));
        }
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
    wrong.extend(hold::mismatches(listener, can));
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

    /// What is wrong with a listener on the embedded broker with other abilities.
    fn wrong_with(listener: Registration, change: impl Fn(&mut Capabilities)) -> Vec<String> {
        let (planned, can) = able_to(listener, change);
        let mut wrong = Vec::new();
        mismatches(&planned, &can, &mut wrong);
        wrong
    }

    /// A listener, and what the embedded broker can with other abilities.
    pub(in crate::app) fn able_to(
        listener: Registration,
        change: impl Fn(&mut Capabilities),
    ) -> (Planned, Capabilities) {
        let (mut planned, _) = planned_with(vec![listener]);
        let client = crate::contract::Client {
            application: "check".into(),
            instance: "1".into(),
        };
        let mut can = postrider_memory::isolated(client).capabilities().clone();
        change(&mut can);
        (planned.remove(0), can)
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
    fn handlers_that_never_run_are_told() {
        let told = |variables: &[(&str, &str)]| {
            let named = |&(name, value): &(&str, &str)| (format!("POSTRIDER__{name}"), value.to_owned());
            let config = Config::of_variables(variables.iter().map(named));
            let mut problems = Vec::new();
            let listeners = crate::listeners![plain, batch];
            let planned = plan(listeners, &config, "shop", &StateMap::default(), &mut problems);
            assert_eq!(problems, [""; 0], "it starts");
            planned.iter().filter_map(idle).collect::<Vec<String>>()
        };
        let many = ("PLAIN__CONCURRENCY", "200");
        let batches = ("BATCH__CONCURRENCY", "100");
        assert_eq!(told(&[many, batches]), [""; 0]);
        assert_eq!(
            told(&[
                many,
                ("PLAIN__PREFETCH", "199"),
                batches,
                ("BATCH__PREFETCH", "100")
            ]),
            [
                "a `concurrency` of 200 is never reached with a `prefetch` of 199: set `prefetch` to at least 200",
                "a `concurrency` of 100 batches of 2 is never reached with a `prefetch` of 100: set `prefetch` to at least 200",
            ]
        );
        assert_eq!(told(&[many, ("PLAIN__PREFETCH", "200")]), [""; 0]);
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
