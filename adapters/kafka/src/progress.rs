//! What rides in a commit's metadata beside the offset.

use std::fmt::Write as _;
use std::ops::Range;

use crate::incarnation::Incarnation;

/// Kafka's default for `offset.metadata.max.bytes`; a commit above it is refused.
const LONGEST: usize = 4096;
/// Begins our metadata, so that another program's is not misread.
const MARK: &str = "postrider1";

/// What one assignment of a partition leaves to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// How often the message at the committed offset had been delivered without a verdict when the assignment began.
    pub(crate) starts: u32,
    /// It is delivered at this moment: if nothing more is committed, that was one start more.
    pub(crate) begun: bool,
    /// How many messages are delivered and not settled: for whoever asks for depths.
    pub(crate) held: u32,
    /// The assignment is in use. Still so when the next one begins: it ended without a goodbye.
    pub(crate) open: bool,
    /// Which topic of this name the offset belongs to.
    pub(crate) incarnation: Option<Incarnation>,
    /// What is done above the committed offset.
    pub(crate) ahead: Vec<Range<i64>>,
}

impl Progress {
    /// As text. Ranges that do not fit are left out, the farthest first: they would be delivered twice, never lost.
    pub(crate) fn encode(&self, position: i64) -> String {
        let (begun, open) = (u8::from(self.begun), u8::from(self.open));
        let mut text = format!("{MARK} {} {begun} {open} {}", self.starts, self.held);
        if let Some(incarnation) = &self.incarnation {
            let _ = write!(text, " {}", incarnation.word());
        }
        let mut last = position;
        for range in &self.ahead {
            let before = text.len();
            // Writing to a string cannot fail.
            let _ = write!(text, " {}+{}", range.start - last, range.end - range.start);
            if text.len() > LONGEST {
                text.truncate(before);
                break;
            }
            last = range.end;
        }
        text
    }

    /// From a commit's metadata; what is not ours says nothing.
    pub(crate) fn decode(text: &str, position: i64) -> Self {
        Self::parse(text, position).unwrap_or_default()
    }

    fn parse(text: &str, position: i64) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next()? != MARK {
            return None;
        }
        let starts = words.next()?.parse().ok()?;
        let begun = words.next()? == "1";
        let open = words.next()? == "1";
        let held = words.next()?.parse().ok()?;
        let mut last = position;
        let mut words = words.peekable();
        let incarnation = words.peek().copied().and_then(Incarnation::read);
        if incarnation.is_some() {
            words.next();
        }
        let mut ahead = Vec::new();
        for word in words {
            let (gap, length) = word.split_once('+')?;
            let start = last.checked_add(gap.parse().ok().filter(|&gap: &i64| gap >= 0)?)?;
            last = start.checked_add(length.parse().ok().filter(|&length: &i64| length > 0)?)?;
            ahead.push(start..last);
        }
        Some(Self {
            starts,
            begun,
            held,
            open,
            incarnation,
            ahead,
        })
    }

    /// How often the message at the committed offset has been delivered without a verdict, told at the next assignment.
    pub(crate) fn starts_so_far(&self) -> u32 {
        self.starts.saturating_add(u32::from(self.begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_metadata_says_nothing() {
        for text in [
            "",
            "x",
            "postrider1",
            "postrider1 1 1",
            "postrider1 0 0 1 0 -1+3",
            "postrider1 0 0 1 0 1+9999999999999999999",
        ] {
            assert_eq!(Progress::decode(text, 5), Progress::default(), "{text}");
        }
    }

    #[test]
    fn fits_whatever_happens() {
        let ahead = (0..5000).map(|n| n * 3 + 1..n * 3 + 2).collect();
        let progress = Progress {
            ahead,
            ..Progress::default()
        };
        let text = progress.encode(0);
        assert!(text.len() <= LONGEST);
        let kept = Progress::decode(&text, 0).ahead;
        assert!(kept.len() > 500);
        assert_eq!(kept, progress.ahead[..kept.len()]);
    }

    #[test]
    fn round_trips() {
        let check =
            |(starts, begun, held, open, position, gaps): &(u32, bool, u32, bool, u32, Vec<(u16, u16)>)| {
                let position = i64::from(*position);
                let mut last = position;
                let ahead = gaps.iter().map(|&(gap, length)| {
                    let start = last + 1 + i64::from(gap);
                    last = start + 1 + i64::from(length);
                    start..last
                });
                let progress = Progress {
                    starts: *starts,
                    begun: *begun,
                    held: *held,
                    open: *open,
                    incarnation: Incarnation::new("a_b", "c/d+e").filter(|_| held % 2 == 0),
                    ahead: ahead.collect(),
                };
                assert_eq!(Progress::decode(&progress.encode(position), position), progress);
            };
        bolero::check!().with_type().for_each(check);
    }

    /// Whatever another program commits: what is read of it lies ahead, in order and apart, and reads back.
    #[test]
    fn any_metadata_is_sound() {
        const WORDS: [&str; 18] = [
            MARK,
            " ",
            " ",
            " ",
            "+",
            "-",
            "0",
            "1",
            "2",
            "9",
            "4294967295",
            "9223372036854775807",
            "1+1",
            "0+1",
            "x",
            ":",
            "c:1+1",
            "\0",
        ];
        bolero::check!()
            .with_type::<(Vec<u8>, u64, Vec<(i8, i64)>)>()
            .for_each(|(words, position, pairs)| {
                let position = (position >> 1) as i64;
                let words = words.iter().map(|&word| WORDS[usize::from(word) % WORDS.len()]);
                let text = if pairs.is_empty() {
                    words.collect()
                } else {
                    let pairs = pairs.iter().map(|(gap, length)| format!(" {gap}+{length}"));
                    format!("{MARK} 3 1 1 2{}", pairs.collect::<String>())
                };
                let read = Progress::decode(&text, position);
                let mut last = position;
                for range in &read.ahead {
                    assert!(range.start >= last && range.end > range.start, "{text:?}");
                    last = range.end;
                }
                let again = read.encode(position);
                assert!(again.len() <= LONGEST);
                assert_eq!(Progress::decode(&again, position), read, "{text:?}");
            });
    }
}
