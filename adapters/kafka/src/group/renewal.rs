//! Topics that are deleted and made anew under a running consumer.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::Offset;

use super::member::Member;
use super::state::{Shared, State};
use crate::incarnation::{Incarnation, Relation};
use crate::progress::Progress;

/// How long librdkafka may take to turn to another offset.
const TURN: Duration = Duration::from_secs(1);

impl State {
    /// librdkafka tells a topic's id.
    pub(crate) fn note_id(&mut self, topic: &str, id: &str) {
        self.ids.insert(topic.to_owned(), id.to_owned());
        self.unchecked = true;
    }

    /// Compares positions with the topics as they are now in this cluster: those of a former topic of the name begin anew.
    pub(super) fn check_incarnations(&mut self, cluster: &str) {
        self.unchecked = false;
        for index in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(index).filter(|lane| lane.delivers()) else {
                continue;
            };
            let id = self.ids.get(&lane.route.name);
            let Some(now) = id.and_then(|id| Incarnation::new(cluster, id)) else {
                continue;
            };
            let relation = lane.incarnation.as_ref().map(|before| before.relation(&now));
            match relation {
                Some(Relation::Same) => continue,
                Some(Relation::Successor) => {
                    tracing::warn!(
                        topic = lane.route.name,
                        partition = lane.partition,
                        "the topic was deleted and made anew: it is read from its beginning"
                    );
                    self.begin_anew(index, 0);
                }
                Some(Relation::Copy) => lane.forget(),
                None => {}
            }
            self.rewinding |= relation == Some(Relation::Successor);
            if let Some(lane) = self.lanes.get_mut(index) {
                lane.rewinding |= relation == Some(Relation::Successor);
                lane.incarnation = Some(now);
                lane.dirty = true;
                self.dirty = true;
            }
        }
    }

    /// Nothing is left of what was received of a lane: it begins at this offset.
    pub(super) fn begin_anew(&mut self, index: usize, offset: i64) {
        self.clear(index);
        if let Some(lane) = self.lanes.get_mut(index) {
            let (incarnation, paused) = (lane.incarnation.take(), lane.paused);
            lane.begin(Some(offset), Progress::default());
            // librdkafka knows nothing of this.
            (lane.incarnation, lane.paused) = (incarnation, paused);
            // No broker has confirmed that.
            lane.committed = None;
        }
    }

    /// The lanes that librdkafka is to turn back.
    fn take_rewinding(&mut self) -> Vec<(usize, u32, String, i32)> {
        self.rewinding = false;
        let lanes = self.lanes.iter().enumerate().filter(|(_, lane)| lane.rewinding);
        lanes
            .map(|(index, lane)| (index, lane.epoch, lane.route.name.clone(), lane.partition))
            .collect()
    }
}

/// Looks whether a topic was made anew, before anything that came of it since is delivered.
pub(super) fn check(shared: &Shared, consumer: &BaseConsumer<Member>) {
    if !shared.lock().unchecked {
        return;
    }
    // Told together with a topic's, or just after.
    if let Some(cluster) = consumer.client().fetch_cluster_id(Duration::ZERO) {
        shared.lock().check_incarnations(&cluster);
    }
}

/// Sees to it that lanes whose topic was made anew are read from its beginning. On the thread that polls.
pub(super) fn rewind(shared: &Shared, consumer: &BaseConsumer<Member>) {
    let lanes = shared.lock().take_rewinding();
    for (index, epoch, topic, partition) in lanes {
        let turned = consumer.seek(&topic, partition, Offset::Beginning, TURN);
        let mut state = shared.lock();
        match turned {
            Ok(()) => {
                let lane = state.lanes.get_mut(index);
                if let Some(lane) = lane.filter(|lane| lane.epoch == epoch) {
                    lane.rewinding = false;
                }
            }
            Err(error) => {
                tracing::debug!(%error, topic, partition, "turning to the beginning is tried again");
                state.rewinding = true;
            }
        }
    }
}
