//! What listeners on one broker may not share: a subscription, or a circle of dead letters.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::check::{Planned, complaint};
use crate::connect::BROKER_URL;
use crate::contract::Sharing;

/// What listeners on one broker may not share. `places` knows of two names that they are one broker.
pub(super) fn problems(planned: &[Planned], places: &Places) -> Vec<String> {
    let mut problems = Vec::new();
    shared_subscriptions(planned, places, &mut problems);
    dead_letter_loops(planned, places, &mut problems);
    problems
}

/// Where the brokers are, by their names; one that is missing is told by its name.
pub(super) type Places = BTreeMap<String, String>;

fn place<'a>(listener: &'a Planned, places: &'a Places) -> &'a str {
    places.get(&listener.broker).unwrap_or(&listener.broker)
}

/// Two listeners of one group on one topic would take each other's messages; of copies, the dead letters at least.
fn shared_subscriptions(planned: &[Planned], places: &Places, problems: &mut Vec<String>) {
    let mut seen: HashMap<(&str, &str, &str), &Planned> = HashMap::new();
    for listener in planned {
        let Planned { spec, .. } = listener;
        let key = (place(listener, places), &**spec.topic(), &*spec.group);
        if let Some(other) = seen.insert(key, listener) {
            let is_copy = [listener, other].map(|one| one.spec.sharing == Sharing::Broadcast);
            let consequence = if is_copy.contains(&true) {
                "their dead letters could not be told apart"
            } else {
                "they would take each other's messages"
            };
            let at = if other.broker == listener.broker {
                String::new()
            } else {
                format!(
                    " on the same broker (`{}` and `{}`)",
                    shown(other),
                    shown(listener)
                )
            };
            let what = format!(
                "`{}` has the same topic `{}` and group `{}`{at}, so {consequence}: give one another group",
                other.spec.listener,
                spec.topic(),
                spec.group
            );
            problems.push(complaint(listener, &what));
        }
    }
}

/// A broker as an application calls it.
fn shown(listener: &Planned) -> &str {
    match &*listener.broker {
        "" => BROKER_URL,
        name => name,
    }
}

/// A dead letter that comes back to its own topic through other listeners' dead-letter topics.
fn dead_letter_loops(planned: &[Planned], places: &Places, problems: &mut Vec<String>) {
    for start in planned {
        if let Some(path) = circle(start, planned, places) {
            let what = format!("dead letters go round in a circle: {}", path.join(" -> "));
            problems.push(complaint(start, &what));
        }
    }
}

/// The topics by which a listener's dead letters come back to its own. That they go there at once is told apart.
fn circle(start: &Planned, planned: &[Planned], places: &Places) -> Option<Vec<Arc<str>>> {
    let mut seen = HashSet::new();
    let mut ways = vec![vec![start.spec.topic().clone(), start.dead_letter()]];
    while let Some(way) = ways.pop() {
        let at = way.last()?;
        if at == start.spec.topic() {
            return (way.len() > 2).then_some(way);
        }
        if !seen.insert(at.clone()) {
            continue;
        }
        let there =
            |other: &&Planned| place(other, places) == place(start, places) && other.spec.topic() == at;
        for next in planned.iter().filter(there) {
            ways.push([&way[..], &[next.dead_letter()]].concat());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::app::check::tests::planned_with;
    use crate::contract::Bytes;
    use crate::listener;

    #[listener(topic = "a", group = "one")]
    async fn a_one(_: Bytes) {}

    #[listener(topic = "a", group = "two", dead_letter = "d")]
    async fn a_two(_: Bytes) {}

    #[listener(topic = "d", group = "one")]
    async fn d_one(_: Bytes) {}

    #[listener(topic = "d", group = "two", dead_letter = "a")]
    async fn d_two(_: Bytes) {}

    #[test]
    fn a_circle_of_dead_letters_is_found_by_every_way() {
        let (_, problems) = planned_with(crate::listeners![a_one, a_two, d_one, d_two]);
        let expected = [("a_two", "a -> d -> a"), ("d_two", "d -> a -> d")]
            .map(|(name, way)| format!("listener `{name}`: dead letters go round in a circle: {way}"));
        assert_eq!(problems, expected);
        let (_, problems) = planned_with(crate::listeners![a_one, a_two, d_one]);
        assert!(problems.is_empty(), "{problems:?}");
    }
}
