//! What the broker deleted before the group had it.

use postrider_contract::Event;

use super::state::State;

/// The partition of which librdkafka logs that what lies at its position is gone, and that it goes on elsewhere.
pub(super) fn told(line: &str) -> Option<(&str, i32)> {
    let (head, _) = line.split_once("]: offset reset (")?;
    let (topic, partition) = head.rsplit_once(" [")?;
    let topic = topic.rsplit(' ').next()?;
    Some((topic, partition.parse().ok()?))
}

impl State {
    /// What lies at the position of a partition is gone.
    pub(crate) fn note_reset(&mut self, topic: &str, partition: i32) {
        let lane = self.lane_of(topic, partition);
        if let Some(lane) = lane.and_then(|id| self.lanes.get_mut(id)) {
            lane.reset = true;
        }
    }

    /// A record comes: what lies between it and the position is counted, if that is gone. Offsets that never were messages
    /// count too; their number is not known.
    pub(super) fn tell_gap(&mut self, id: usize, offset: i64) {
        let Some(lane) = self.lanes.get_mut(id) else {
            return;
        };
        if !std::mem::take(&mut lane.reset) {
            return;
        }
        let lost = lane.tracker.missing_before(offset);
        if let Some(mailbox) = self.boxes.get_mut(lane.mailbox).filter(|_| lost > 0) {
            mailbox.tell(Event::Gap { lost: Some(lost) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_read() {
        let line = "[thrd:main]: a.b [12]: offset reset (at offset 0 (leader epoch 0), broker 1) to cached BEGINNING offset \
                    offset 3 (leader epoch -1): fetch failed due to requested offset not available on the broker: Broker: \
                    Offset out of range";
        assert_eq!(told(line), Some(("a.b", 12)));
        for other in ["", "a [x]: offset reset (at", "a [1]: offset"] {
            assert_eq!(told(other), None, "{other}");
        }
    }
}
