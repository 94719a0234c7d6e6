//! What the journals and the dead letters prove.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::journal::{Line, Micros, What};

/// All that is known of a round so far.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// First time each id was sent.
    pub(crate) sent: BTreeMap<u64, Micros>,
    pub(crate) confirmed: HashSet<u64>,
    /// Sends that failed and were tried again.
    pub(crate) unconfirmed: HashSet<u64>,
    /// The publisher was told that nobody receives them.
    pub(crate) unreceived: HashSet<u64>,
    /// Every effect of each id: when, and of which consumer.
    pub(crate) effects: HashMap<u64, Vec<(Micros, usize)>>,
    pub(crate) dead: HashSet<u64>,
    /// How many messages the consumers themselves know to be lost: each counts what none of them received.
    pub(crate) told: u64,
    /// When one of them last told of some.
    pub(crate) last_told: Micros,
    /// Consumers that ended by themselves, and why.
    pub(crate) ended: Vec<String>,
}

impl Evidence {
    /// From the lines of the publisher, of each consumer, and the ids among the dead letters.
    pub(crate) fn gather<'a>(
        publisher: &[Line],
        consumers: impl IntoIterator<Item = &'a [Line]>,
        dead: &HashSet<u64>,
    ) -> Self {
        let mut this = Self {
            dead: dead.clone(),
            ..Self::default()
        };
        for line in publisher {
            match line.what {
                What::Sent(id) => _ = this.sent.entry(id).or_insert(line.at),
                What::Confirmed(id) => _ = this.confirmed.insert(id),
                What::Unconfirmed(id) => _ = this.unconfirmed.insert(id),
                What::Unreceived(id) => _ = this.unreceived.insert(id),
                _ => {}
            }
        }
        for (consumer, lines) in consumers.into_iter().enumerate() {
            for line in lines {
                match &line.what {
                    What::Effect(id) => this.effects.entry(*id).or_default().push((line.at, consumer)),
                    What::Gap(lost) => {
                        this.told = this.told.max(*lost);
                        this.last_told = this.last_told.max(line.at);
                    }
                    What::Ended(why) => this.ended.push(why.clone()),
                    _ => {}
                }
            }
        }
        this
    }

    /// Confirmed ids with neither an effect nor a dead letter.
    pub(crate) fn missing(&self) -> BTreeSet<u64> {
        let is_missing = |id: &u64| !self.effects.contains_key(id) && !self.dead.contains(id);
        self.confirmed.iter().copied().filter(is_missing).collect()
    }

    /// The first effect of what was sent after a time, by one consumer or by any, among some of the ids.
    pub(crate) fn first_new_effect(
        &self,
        after: Micros,
        consumer: Option<usize>,
        among: impl Fn(u64) -> bool,
    ) -> Option<Micros> {
        self.sent
            .iter()
            .filter(|&(&id, &sent)| sent > after && among(id))
            .filter_map(|(id, _)| self.effects.get(id))
            .flatten()
            .filter(|(_, by)| consumer.is_none_or(|consumer| consumer == *by))
            .map(|&(at, _)| at)
            .min()
    }

    /// The last time that anything had an effect.
    pub(crate) fn last_effect(&self) -> Option<Micros> {
        self.effects.values().flatten().map(|&(at, _)| at).max()
    }

    /// The longest time between two effects of some of the ids, whosever, within these times.
    pub(crate) fn longest_stall(&self, from: Micros, to: Micros, among: impl Fn(u64) -> bool) -> Micros {
        let effects = self.effects.iter().filter(|&(&id, _)| among(id));
        let mut times: Vec<Micros> = effects.flat_map(|(_, all)| all).map(|&(at, _)| at).collect();
        times.retain(|at| (from..to).contains(at));
        times.extend([from, to]);
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }
}

/// The times between which a loss is not the product's: from the fault until everything works again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Excused {
    pub(crate) from: Micros,
    pub(crate) to: Micros,
    /// The fault was in the topic without order alone: it excuses nothing on the other.
    pub(crate) unordered_alone: bool,
}

/// What came out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) published: usize,
    pub(crate) confirmed: usize,
    pub(crate) unconfirmed: usize,
    pub(crate) unreceived: usize,
    pub(crate) handled: usize,
    /// Effects beyond the first of each id.
    pub(crate) duplicates: usize,
    pub(crate) dead: usize,
    /// Confirmed, and neither handled nor a dead letter, although nothing excuses it.
    pub(crate) lost: BTreeSet<u64>,
    /// The same, excused.
    pub(crate) gap: usize,
    /// The gap as the consumers themselves tell it.
    pub(crate) told: u64,
    /// Handled and never sent.
    pub(crate) unexpected: usize,
    /// First effects of a key that came before one of an earlier message.
    pub(crate) disorder: usize,
    /// Given up, although it would have succeeded: an attempt was counted that no handler made.
    pub(crate) wronged: BTreeSet<u64>,
}

impl Verdict {
    /// Judges; `lane` tells the key of an id whose order is kept, `is_doomed` which ids are to be given up.
    pub(crate) fn of(
        evidence: &Evidence,
        excused: Option<Excused>,
        lane: impl Fn(u64) -> Option<u64>,
        is_doomed: impl Fn(u64) -> bool,
    ) -> Self {
        let is_excused = |id: &u64| {
            let sent = evidence.sent.get(id).copied().unwrap_or_default();
            excused.is_some_and(|excused| {
                let of_it = !excused.unordered_alone || lane(*id).is_none();
                of_it && (excused.from..=excused.to).contains(&sent)
            })
        };
        let (gap, lost): (BTreeSet<u64>, BTreeSet<u64>) =
            evidence.missing().into_iter().partition(is_excused);
        let all_effects: usize = evidence.effects.values().map(Vec::len).sum();
        Self {
            published: evidence.sent.len(),
            confirmed: evidence.confirmed.len(),
            unconfirmed: evidence.unconfirmed.len(),
            unreceived: evidence.unreceived.len(),
            handled: evidence.effects.len(),
            duplicates: all_effects - evidence.effects.len(),
            dead: evidence.dead.len(),
            lost,
            gap: gap.len(),
            told: evidence.told,
            unexpected: evidence
                .effects
                .keys()
                .filter(|id| !evidence.sent.contains_key(id))
                .count(),
            disorder: disorder(evidence, lane),
            wronged: evidence
                .dead
                .iter()
                .copied()
                .filter(|&id| !is_doomed(id))
                .collect(),
        }
    }
}

/// Ids of one lane ascend; their first effects must too.
fn disorder(evidence: &Evidence, lane: impl Fn(u64) -> Option<u64>) -> usize {
    let mut firsts: BTreeMap<u64, Vec<(Micros, u64)>> = BTreeMap::new();
    for (&id, effects) in &evidence.effects {
        let first = effects.iter().map(|&(at, _)| at).min();
        if let (Some(lane), Some(first)) = (lane(id), first) {
            firsts.entry(lane).or_default().push((first, id));
        }
    }
    let count = |mut effects: Vec<(Micros, u64)>| {
        effects.sort_unstable();
        effects.windows(2).filter(|pair| pair[0].1 > pair[1].1).count()
    };
    firsts.into_values().map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: Micros, what: What) -> Line {
        Line { at, what }
    }

    fn sent(ids: std::ops::Range<u64>) -> Vec<Line> {
        ids.flat_map(|id| {
            [
                line(id * 10, What::Sent(id)),
                line(id * 10 + 1, What::Confirmed(id)),
            ]
        })
        .collect()
    }

    fn judge(publisher: &[Line], consumers: &[Vec<Line>], dead: &[u64], excused: Option<Excused>) -> Verdict {
        let dead = dead.iter().copied().collect();
        let evidence = Evidence::gather(publisher, consumers.iter().map(Vec::as_slice), &dead);
        Verdict::of(&evidence, excused, |_| Some(0), |id| id == 3)
    }

    #[test]
    fn what_is_neither_handled_nor_dead_is_lost() {
        let effects = vec![line(50, What::Effect(0)), line(51, What::Effect(2))];
        let verdict = judge(&sent(0..4), &[effects], &[3], None);
        assert_eq!(verdict.lost, BTreeSet::from([1]));
        assert_eq!((verdict.handled, verdict.dead, verdict.confirmed), (2, 1, 4));
        assert!(verdict.wronged.is_empty());
    }

    #[test]
    fn what_would_have_succeeded_is_no_dead_letter() {
        let effects = vec![line(50, What::Effect(0)), line(51, What::Effect(1))];
        let verdict = judge(&sent(0..4), &[effects], &[2, 3], None);
        assert_eq!((verdict.wronged, verdict.lost.len()), (BTreeSet::from([2]), 0));
    }

    #[test]
    fn what_was_never_confirmed_is_not_lost() {
        let mut lines = sent(0..1);
        lines.push(line(20, What::Sent(5)));
        lines.push(line(21, What::Unconfirmed(5)));
        let verdict = judge(&lines, &[vec![line(30, What::Effect(0))]], &[], None);
        assert!(verdict.lost.is_empty());
        assert_eq!((verdict.published, verdict.unconfirmed), (2, 1));
    }

    #[test]
    fn an_excuse_holds_within_its_time_alone() {
        let excused = |unordered_alone| Excused {
            from: 10,
            to: 15,
            unordered_alone,
        };
        let judged = |excused| {
            judge(
                &sent(0..3),
                &[vec![line(90, What::Effect(0))]],
                &[],
                Some(excused),
            )
        };
        let verdict = judged(excused(false));
        assert_eq!((verdict.gap, verdict.lost), (1, BTreeSet::from([2])));
        // All are of a lane whose order is kept.
        let verdict = judged(excused(true));
        assert_eq!((verdict.gap, verdict.lost), (0, BTreeSet::from([1, 2])));
    }

    #[test]
    fn duplicates_disorder_and_strangers_are_counted() {
        let one = vec![
            line(50, What::Effect(0)),
            line(52, What::Effect(1)),
            line(60, What::Effect(9)),
        ];
        let other = vec![line(51, What::Effect(2)), line(70, What::Effect(0))];
        let verdict = judge(&sent(0..3), &[one, other], &[], None);
        assert_eq!((verdict.duplicates, verdict.unexpected), (1, 1));
        assert_eq!(verdict.disorder, 1, "2 before 1");
    }

    #[test]
    fn recovery_is_that_of_new_messages() {
        let consumers = [vec![line(50, What::Effect(0))], vec![line(70, What::Effect(2))]];
        let evidence = Evidence::gather(&sent(0..3), consumers.iter().map(Vec::as_slice), &HashSet::new());
        assert_eq!(evidence.first_new_effect(5, None, |_| true), Some(70));
        assert_eq!(evidence.first_new_effect(5, Some(0), |_| true), None);
        assert_eq!(evidence.longest_stall(0, 100, |_| true), 50);
        assert_eq!(evidence.longest_stall(55, 200, |_| true), 130);
    }
}
