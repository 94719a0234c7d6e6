//! Dead letters: looking at them, sending them back, giving them up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use postrider_contract::{
    Bytes, DeadLetter, DeadLetters, Error, ErrorKind, Message, Outgoing, Topology as Mode, names, replay_copy,
};

use crate::dead_index::{DeadIndex, END, Known, MARK, Owner, RESOLVED, Read, message, offset_of};
use crate::declare::Declarer;
use crate::layout::{MARKS, dead_letter_stream};
use crate::link::Live;
use crate::outgoing::{mark, parcel};
use crate::publisher::Answer;
use crate::stream::{Entry, PATIENCE, StreamReader};
use crate::subscription::Shared;

/// Over a gap of so many entries the reader is opened anew instead of read on.
const GAP: u64 = 2_000;

static ENDS: AtomicU64 = AtomicU64::new(0);

/// An answer for each id, `None` where it is not known yet.
type Answers = Vec<Option<Result<(), Error>>>;

pub(crate) struct RabbitDeadLetters {
    shared: Arc<Shared>,
    stream: String,
    owner: Owner,
    index: DeadIndex,
    read: bool,
}

impl RabbitDeadLetters {
    pub(crate) fn new(shared: Arc<Shared>, topic: &str, source: &str, group: &str) -> Self {
        Self {
            stream: shared.topology.layout().stream(topic),
            owner: Owner::new(source, group),
            index: DeadIndex::default(),
            read: false,
            shared,
        }
    }

    /// Reads on to the end of the stream. AMQP tells neither its length nor its last offset (the count of a declaration is
    /// a metric, seconds old), so an end mark is written and read up to: what was there before it has been read then.
    async fn read_on(&mut self) -> Result<(), Error> {
        let live = self.shared.lookout.get().await?;
        if !self.exists(&live).await? {
            return Ok(());
        }
        let instance = &self.shared.settings.client.instance;
        let end = format!("{instance}-{}", ENDS.fetch_add(1, Ordering::Relaxed));
        let marking = Message::new("")
            .with_header(names::MESSAGE_ID, end.as_str())
            .with_header(MARK, END);
        self.mark(vec![marking])
            .await
            .into_iter()
            .find_map(Result::err)
            .map_or(Ok(()), Err)?;
        if !self.read_to(&end).await? {
            self.index = DeadIndex::default();
            self.read = false;
            self.read_to(&end).await?;
        }
        self.read = true;
        Ok(())
    }

    /// Reads on to this mark; `false` where what was read last is not there any more: the stream was cut or made anew.
    async fn read_to(&mut self, end: &str) -> Result<bool, Error> {
        let next = self.index.next();
        let mut reader =
            StreamReader::open(&self.shared.lookout, &self.stream, next.saturating_sub(1)).await?;
        if next > 0 {
            // Behind the end of a shorter stream nothing comes.
            match reader.next_within(PATIENCE).await? {
                Some(entry) if self.index.ends_with(&entry) => {}
                _ => return Ok(false),
            }
        }
        let end = Read::End(end.to_owned());
        while self.index.add(&self.owner, &reader.next().await?) != end {}
        Ok(true)
    }

    /// Whether there is a stream, made sure that it is one and takes marks.
    async fn exists(&self, live: &Live) -> Result<bool, Error> {
        let mut looking = Declarer::new(live, Mode::Verify);
        if looking.look(&self.stream).await?.is_none() {
            return Ok(false);
        }
        looking.queue(&self.stream, dead_letter_stream()).await?;
        let mut declaring = Declarer::new(live, Mode::Declare);
        if self.shared.topology.declares() {
            declaring
                .exchange(MARKS, lapin::ExchangeKind::Direct, None)
                .await?;
            declaring.bind_queue(&self.stream, MARKS, &self.stream).await?;
        }
        let mut faults = looking.take_faults();
        faults.extend(declaring.take_faults());
        match faults.into_iter().next() {
            Some(fault) => Err(fault.into()),
            None => Ok(true),
        }
    }

    async fn mark(&self, marks: Vec<Message>) -> Vec<Answer> {
        let marks = marks
            .into_iter()
            .map(|message| mark(&self.stream, message))
            .collect();
        self.shared.publisher.send_prepared(marks).await
    }

    /// The messages at these offsets, in their order; one that has expired is left out, and forgotten.
    async fn fetch(&mut self, offsets: &[u64]) -> Result<BTreeMap<u64, Message>, Error> {
        let mut found = BTreeMap::new();
        let mut reading: Option<(StreamReader, Entry)> = None;
        for &wanted in offsets {
            let (mut reader, mut entry) = match reading {
                Some((reader, entry)) if wanted.saturating_sub(entry.offset) <= GAP => (reader, entry),
                _ => {
                    let mut reader = StreamReader::open(&self.shared.lookout, &self.stream, wanted).await?;
                    let first = reader.next().await?;
                    if first.offset > wanted {
                        self.index.forget_before(first.offset);
                    }
                    (reader, first)
                }
            };
            while entry.offset < wanted {
                entry = reader.next().await?;
            }
            if entry.offset == wanted {
                found.insert(wanted, message(&entry));
            }
            reading = Some((reader, entry));
        }
        Ok(found)
    }

    /// Answers for ids that need no work, and the offsets of those that do.
    fn sort_out(&self, ids: &[Bytes]) -> (Answers, BTreeMap<u64, Vec<usize>>) {
        let mut answers: Answers = Vec::with_capacity(ids.len());
        let mut work: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (n, id) in ids.iter().enumerate() {
            answers.push(match self.index.find(id) {
                Known::Resolved => Some(Ok(())),
                Known::Unknown => Some(Err(Error::new(
                    ErrorKind::Rejected,
                    format!(
                        "there is no dead letter {:?} of group `{}` here: browse again",
                        String::from_utf8_lossy(id),
                        self.owner.group
                    ),
                ))),
                Known::Open(offset) => {
                    work.entry(offset).or_default().push(n);
                    None
                }
            });
        }
        (answers, work)
    }

    /// Writes the marks that resolve, and answers.
    async fn resolve(
        &mut self,
        ids: &[Bytes],
        work: BTreeMap<u64, Vec<usize>>,
        answers: &mut [Option<Result<(), Error>>],
    ) {
        let resolving: Vec<(&Bytes, Vec<usize>)> = work
            .into_values()
            .filter_map(|places| Some((ids.get(*places.first()?)?, places)))
            .collect();
        let marks = resolving
            .iter()
            .map(|(id, _)| Message::new((*id).clone()).with_header(MARK, RESOLVED))
            .collect();
        for ((id, places), answer) in resolving.into_iter().zip(self.mark(marks).await) {
            let answer = answer.map(|_| ());
            if answer.is_ok() {
                self.index.resolve(id);
            }
            for place in places {
                answers[place] = Some(answer.clone());
            }
        }
    }

    fn finished(answers: Answers) -> Vec<Result<(), Error>> {
        let missing = || {
            Err(Error::new(
                ErrorKind::Internal,
                "a dead letter was left without an answer",
            ))
        };
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(missing))
            .collect()
    }
}

fn all(ids: &[Bytes], error: &Error) -> Vec<Result<(), Error>> {
    ids.iter().map(|_| Err(error.clone())).collect()
}

#[async_trait]
impl DeadLetters for RabbitDeadLetters {
    async fn browse(&mut self, after: Option<&Bytes>, max: usize) -> Result<Vec<DeadLetter>, Error> {
        let after = match after {
            None => None,
            Some(id) => Some(offset_of(id).ok_or_else(|| {
                Error::new(
                    ErrorKind::Rejected,
                    "the cursor is no id of a dead letter: browse from the start",
                )
            })?),
        };
        if after.is_none() || !self.read {
            self.read_on().await?;
        }
        loop {
            let page: Vec<(u64, Bytes)> = self
                .index
                .open_after(after)
                .take(max)
                .map(|(offset, id)| (offset, id.clone()))
                .collect();
            let offsets: Vec<u64> = page.iter().map(|(offset, _)| *offset).collect();
            let mut messages = self.fetch(&offsets).await?;
            // Where all of a page has expired, it is forgotten now, and the next one is looked at.
            if messages.is_empty() && !page.is_empty() {
                continue;
            }
            let letter = |(offset, id)| {
                let message = messages.remove(&offset)?;
                Some(DeadLetter { id, message })
            };
            return Ok(page.into_iter().filter_map(letter).collect());
        }
    }

    async fn replay(&mut self, ids: &[Bytes]) -> Vec<Result<(), Error>> {
        if let Err(error) = self.read_on().await {
            return all(ids, &error);
        }
        let (mut answers, mut work) = self.sort_out(ids);
        let offsets: Vec<u64> = work.keys().copied().collect();
        let messages = match self.fetch(&offsets).await {
            Ok(messages) => messages,
            Err(error) => return all(ids, &error),
        };
        let copies = offsets.iter().map(|offset| {
            let dead = messages.get(offset).ok_or_else(|| {
                Error::new(ErrorKind::Rejected, "the dead letter has expired: browse again")
            })?;
            let copy = Outgoing::to_inbox(
                self.owner.source.as_str(),
                self.owner.group.as_str(),
                replay_copy(dead),
            );
            parcel(&self.shared.settings, &self.shared.topology, copy, true)
        });
        let sent = self.shared.publisher.send_prepared(copies.collect()).await;
        for (offset, answer) in offsets.iter().zip(sent) {
            if let Err(error) = answer {
                for place in work.remove(offset).unwrap_or_default() {
                    answers[place] = Some(Err(error.clone()));
                }
            }
        }
        self.resolve(ids, work, &mut answers).await;
        Self::finished(answers)
    }

    async fn purge(&mut self, ids: &[Bytes]) -> Vec<Result<(), Error>> {
        if let Err(error) = self.read_on().await {
            return all(ids, &error);
        }
        let (mut answers, work) = self.sort_out(ids);
        self.resolve(ids, work, &mut answers).await;
        Self::finished(answers)
    }
}
