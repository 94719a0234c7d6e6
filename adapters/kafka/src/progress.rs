//! What rides in a commit's metadata beside the offset.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::ops::Range;

use crate::incarnation::Incarnation;

/// Kafka's default for `offset.metadata.max.bytes`; a commit above it is refused.
const LONGEST: usize = 4096;
/// How many ranges of the same count are kept, the first ones: few differ, and all of them fit.
const MOST_COUNTS: usize = 128;
/// Begins our metadata, so that another program's is not misread.
const MARK: &str = "postrider1";

/// What one assignment of a partition leaves to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// How many messages are delivered and not settled: for whoever asks for depths.
    pub(crate) held: u32,
    /// The assignment is in use. Still so when the next one begins: it ended without a goodbye.
    pub(crate) open: bool,
    /// Which topic of this name the offset belongs to.
    pub(crate) incarnation: Option<Incarnation>,
    /// What is delivered at this moment, or was when an assignment ended without a goodbye.
    pub(crate) counts: Counts,
    /// What is done above the committed offset.
    pub(crate) ahead: Vec<Range<i64>>,
}

impl Progress {
    /// As text. Ranges that do not fit are left out, the farthest first: they would be delivered twice, never lost.
    pub(crate) fn encode(&self, position: i64) -> String {
        let mut text = format!("{MARK} {} {}", u8::from(self.open), self.held);
        if let Some(incarnation) = &self.incarnation {
            let _ = write!(text, " {}", incarnation.word());
        }
        let mut last = position;
        for (range, count) in &self.counts.0 {
            // A range may begin with what was settled since.
            let start = range.start.max(last);
            if start < range.end {
                let _ = write!(text, " {}+{}*{count}", start - last, range.end - start);
                last = range.end;
            }
        }
        last = position;
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
        let open = words.next()? == "1";
        let held = words.next()?.parse().ok()?;
        let mut words = words.peekable();
        let incarnation = words.next_if(|word| word.contains(':'));
        let incarnation = incarnation.and_then(Incarnation::read);
        let (mut counts, mut ahead) = (Counts::default(), Vec::new());
        let (mut counted, mut done) = (position, position);
        for word in words {
            match word.split_once('*') {
                Some((word, count)) => {
                    let (run, count) = (range(word, &mut counted)?, count.parse().ok()?);
                    if counts.0.len() < MOST_COUNTS {
                        counts.0.push_back((run, count));
                    }
                }
                None => ahead.push(range(word, &mut done)?),
            }
        }
        Some(Self {
            held,
            open,
            incarnation,
            counts,
            ahead,
        })
    }
}

/// Reads `gap+length`, and moves the end of the range before to that of this.
fn range(word: &str, last: &mut i64) -> Option<Range<i64>> {
    let (gap, length) = word.split_once('+')?;
    let start = last.checked_add(gap.parse().ok().filter(|&gap: &i64| gap >= 0)?)?;
    *last = start.checked_add(length.parse().ok().filter(|&length: &i64| length > 0)?)?;
    Some(start..*last)
}

/// How often messages were delivered without a verdict, by their offsets, in order. What is not in it never was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Counts(VecDeque<(Range<i64>, u32)>);

impl Counts {
    /// Those of unsettled messages, in order, and those of the `rest`, which lies behind them. What lies between two messages of
    /// the same count is settled, or never was: it does not matter what is said of it.
    pub(crate) fn new(unsettled: impl Iterator<Item = (i64, u32)>, rest: &Self) -> Self {
        let mut runs = VecDeque::<(Range<i64>, u32)>::new();
        let mut before = 0;
        for (offset, count) in unsettled {
            match runs.back_mut().filter(|_| count == before) {
                _ if count == 0 => {}
                Some((run, _)) => run.end = offset + 1,
                None => runs.push_back((offset..offset + 1, count)),
            }
            before = count;
        }
        runs.extend(rest.0.iter().cloned());
        runs.truncate(MOST_COUNTS);
        Self(runs)
    }

    /// The count of this message, which is not asked for again, nor is what lies before it.
    pub(crate) fn take(&mut self, offset: i64) -> u32 {
        while self.0.front().is_some_and(|(run, _)| run.end <= offset) {
            self.0.pop_front();
        }
        match self.0.front_mut() {
            Some((run, count)) if run.start <= offset => {
                run.start = offset + 1;
                let count = *count;
                if run.is_empty() {
                    self.0.pop_front();
                }
                count
            }
            _ => 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
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
            "postrider1 1",
            "postrider1 1 0 -1+3",
            "postrider1 1 0 1+9999999999999999999",
            "postrider1 1 0 1+3*x",
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
        type Parts = (Vec<(u16, u32)>, u32, bool, u32, Vec<(u16, u16)>);
        let check = |(counted, held, open, position, gaps): &Parts| {
            let position = i64::from(*position);
            let mut offset = position - 1;
            let counted = counted.iter().map(|&(gap, count)| {
                offset += 1 + i64::from(gap);
                (offset, count)
            });
            let counts = Counts::new(counted, &Counts::default());
            let mut last = position;
            let ahead = gaps.iter().map(|&(gap, length)| {
                let start = last + 1 + i64::from(gap);
                last = start + 1 + i64::from(length);
                start..last
            });
            let progress = Progress {
                counts,
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
        const WORDS: [&str; 20] = [
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
            "*",
            "0+1*3",
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
                    let pairs = pairs
                        .iter()
                        .map(|(gap, length)| format!(" {gap}+{length} {length}+{gap}*2"));
                    format!("{MARK} 1 2{}", pairs.collect::<String>())
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
