//! What publishers and consumers write down: a line for each thing that happened, by one write, so that a process that is
//! killed leaves whole lines.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970, by the clock that all processes of the machine share.
pub(crate) type Micros = u64;

pub(crate) fn now() -> Micros {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as u64)
}

/// Appends to one file.
#[derive(Clone)]
pub(crate) struct Journal(Arc<File>);

impl Journal {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self(Arc::new(file)))
    }

    fn line(&self, text: &str) -> io::Result<()> {
        // One call with the whole line; in append mode the system puts it behind whatever is there.
        let line = format!("{} {text}\n", now());
        (&*self.0).write_all(line.as_bytes())
    }

    /// A message is about to be sent, for the first time.
    pub(crate) fn sent(&self, id: u64) -> io::Result<()> {
        self.line(&format!("sent {id}"))
    }

    /// The broker confirmed it.
    pub(crate) fn confirmed(&self, id: u64) -> io::Result<()> {
        self.line(&format!("confirmed {id}"))
    }

    /// A send failed with this kind of error, and is tried again.
    pub(crate) fn unconfirmed(&self, id: u64, kind: &str) -> io::Result<()> {
        self.line(&format!("unconfirmed {id} {kind}"))
    }

    /// The broker said that nobody receives it: it is gone, and the publisher knows.
    pub(crate) fn unreceived(&self, id: u64) -> io::Result<()> {
        self.line(&format!("unreceived {id}"))
    }

    /// A consumer receives.
    pub(crate) fn ready(&self) -> io::Result<()> {
        self.line("ready")
    }

    /// An attempt began.
    pub(crate) fn begun(&self, id: u64, attempt: u32) -> io::Result<()> {
        self.line(&format!("begun {id} {attempt}"))
    }

    /// The work is done.
    pub(crate) fn effect(&self, id: u64, attempt: u32) -> io::Result<()> {
        self.line(&format!("effect {id} {attempt}"))
    }

    /// How many messages the listeners of this consumer know to be lost, all together.
    pub(crate) fn gap(&self, lost: u64) -> io::Result<()> {
        self.line(&format!("gap {lost}"))
    }

    /// A consumer ended by itself.
    pub(crate) fn ended(&self, why: &str) -> io::Result<()> {
        self.line(&format!("ended {}", why.replace('\n', " ")))
    }
}

/// A line of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) at: Micros,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Sent(u64),
    Confirmed(u64),
    Unconfirmed(u64),
    Unreceived(u64),
    Ready,
    Begun(u64),
    Effect(u64),
    Gap(u64),
    Ended(String),
}

/// Reads a journal as far as it is written, on and on.
pub(crate) struct Tail {
    path: PathBuf,
    read: usize,
    pub(crate) lines: Vec<Line>,
}

impl Tail {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            read: 0,
            lines: Vec::new(),
        }
    }

    /// Adds what was written since the last time.
    pub(crate) fn follow(&mut self) -> io::Result<()> {
        use std::io::{Read as _, Seek as _, SeekFrom};
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        file.seek(SeekFrom::Start(self.read as u64))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1);
        self.read += whole;
        for text in String::from_utf8_lossy(&bytes[..whole]).lines() {
            let line = parse(text)
                .ok_or_else(|| io::Error::other(format!("{}: a torn line: {text:?}", self.path.display())))?;
            self.lines.push(line);
        }
        Ok(())
    }
}

fn parse(text: &str) -> Option<Line> {
    let (at, rest) = text.split_once(' ')?;
    let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let number = || rest.split(' ').next().and_then(|id| id.parse().ok());
    let what = match word {
        "sent" => What::Sent(number()?),
        "confirmed" => What::Confirmed(number()?),
        "unconfirmed" => What::Unconfirmed(number()?),
        "unreceived" => What::Unreceived(number()?),
        "ready" => What::Ready,
        "begun" => What::Begun(number()?),
        "effect" => What::Effect(number()?),
        "gap" => What::Gap(number()?),
        "ended" => What::Ended(rest.to_owned()),
        _ => return None,
    };
    Some(Line {
        at: at.parse().ok()?,
        what,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let path = std::env::temp_dir().join(format!("postrider-chaos-journal-{}", std::process::id()));
        let journal = Journal::open(&path).unwrap();
        journal.sent(1).unwrap();
        journal.unconfirmed(1, "unavailable").unwrap();
        let mut tail = Tail::new(path.clone());
        tail.follow().unwrap();
        journal.effect(1, 2).unwrap();
        (&*journal.0).write_all(b"12 effect 7").unwrap();
        tail.follow().unwrap();
        let what: Vec<What> = tail.lines.iter().map(|line| line.what.clone()).collect();
        assert_eq!(what, [What::Sent(1), What::Unconfirmed(1), What::Effect(1)]);
        (&*journal.0).write_all(b" 1\n").unwrap();
        tail.follow().unwrap();
        assert_eq!(tail.lines.last().unwrap().what, What::Effect(7));
        (&*journal.0).write_all(b"nonsense\n").unwrap();
        assert!(tail.follow().is_err());
        std::fs::remove_file(path).unwrap();
    }
}
