//! When the resolved beginnings of dead-letter topics are deleted: it takes longer than to replay one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// At most so often for each topic.
const PAUSE: Duration = Duration::from_secs(10);

/// Dead letters are resolved one call at a time in this process, so that none is replayed twice.
pub(crate) type Resolving = tokio::sync::Mutex<Trims>;

/// A dead-letter topic's, and the source and group that it was last resolved for.
#[derive(Debug)]
struct Trim {
    last: Instant,
    /// Something was resolved since.
    due: bool,
    whose: (Arc<str>, Arc<str>),
}

/// By dead-letter topic.
#[derive(Debug, Default)]
pub(crate) struct Trims(HashMap<Arc<str>, Trim>);

impl Trims {
    /// Something was resolved. Answers whether to delete now; if not, it becomes due.
    pub(crate) fn begin(&mut self, topic: &Arc<str>, (source, group): (&Arc<str>, &Arc<str>)) -> bool {
        let now = Instant::now();
        let Some(trim) = self.0.get_mut(topic) else {
            let whose = (source.clone(), group.clone());
            let (last, due) = (now, false);
            self.0.insert(topic.clone(), Trim { last, due, whose });
            return true;
        };
        let begins = now.duration_since(trim.last) >= PAUSE;
        trim.due = !begins;
        if begins {
            trim.last = now;
        }
        begins
    }

    /// Takes out what is due: topic, source, group.
    pub(crate) fn take_due(&mut self) -> Vec<[Arc<str>; 3]> {
        let due = self.0.extract_if(|_, trim| trim.due);
        due.map(|(topic, trim)| [topic, trim.whose.0, trim.whose.1])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_begins_and_the_rest_is_due_later() {
        let mut trims = Trims::default();
        let (topic, other): (Arc<str>, Arc<str>) = ("t.g.dlq".into(), "u.g.dlq".into());
        let whose: (Arc<str>, Arc<str>) = ("t".into(), "g".into());
        let whose = (&whose.0, &whose.1);
        assert!(trims.begin(&topic, whose));
        assert!(trims.take_due().is_empty());
        assert!(!trims.begin(&topic, whose));
        assert!(trims.begin(&other, whose));
        assert_eq!(trims.take_due(), [["t.g.dlq".into(), "t".into(), "g".into()]]);
        assert!(trims.take_due().is_empty());
        assert!(trims.begin(&topic, whose), "it begins anew");
    }
}
