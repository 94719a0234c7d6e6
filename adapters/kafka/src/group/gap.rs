//! What the broker deleted before the group had it.

use postrider_contract::Event;

use super::state::State;

/// The partition and the offset of which librdkafka logs that it is gone, and that it goes on elsewhere.
pub(super) fn told(line: &str) -> Option<(&str, i32, i64)> {
    let (head, rest) = line.split_once("]: offset reset (at offset ")?;
    let (topic, partition) = head.rsplit_once(" [")?;
    let (offset, _) = rest.split_once(' ')?;
    Some((
        topic.rsplit(' ').next()?,
        partition.parse().ok()?,
        offset.parse().ok()?,
    ))
}

impl State {
    /// What lies at this offset is gone.
    pub(crate) fn note_reset(&mut self, topic: &str, partition: i32, offset: i64) {
        let lane = self.lane_of(topic, partition);
        if let Some(lane) = lane.and_then(|id| self.lanes.get_mut(id)) {
            lane.reset = Some(offset);
        }
    }

    /// A record comes: what lies between it and the position is counted, if that is gone. Offsets that never were messages
    /// count too; their number is not known.
    pub(super) fn tell_gap(&mut self, id: usize, offset: i64) {
        let Some(lane) = self.lanes.get_mut(id) else {
            return;
        };
        // Before it come those that were fetched already.
        if lane.reset.take_if(|reset| *reset <= offset).is_none() {
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
        assert_eq!(told(line), Some(("a.b", 12, 0)));
        for other in [
            "",
            "a [x]: offset reset (at offset 1 (",
            "a [1]: offset reset (at BEGINNING",
        ] {
            assert_eq!(told(other), None, "{other}");
        }
    }
}
