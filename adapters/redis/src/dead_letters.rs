//! Looking at dead letters, putting them back, throwing them away.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use postrider_contract::{
    Bytes, DeadLetter, DeadLetters, Error, ErrorKind, Message, Outgoing, names, replay_copy,
};
use redis::Value;

use crate::failure::from_server;
use crate::keys;
use crate::link::{COMMAND, Link};
use crate::publish::Publisher;
use crate::scripts::Name;
use crate::subscription::entry::{Entry, EntryId, Stream};
use crate::subscription::page::Pages;

/// Read at once, at most.
const PAGE: usize = 200;

pub(crate) struct Letters {
    link: Arc<Link>,
    publisher: Arc<Publisher>,
    source: String,
    group: String,
    key: String,
    inbox: String,
    /// All of them belong to this group: the topic is called after it.
    exclusive: bool,
    /// Topic and inbox share a slot: a script may move between them.
    movable: bool,
    pages: Pages,
}

impl Letters {
    pub(crate) fn new(
        link: Arc<Link>,
        publisher: Arc<Publisher>,
        topic: &str,
        source: &str,
        group: &str,
    ) -> Self {
        Self {
            link,
            publisher,
            source: source.to_owned(),
            group: group.to_owned(),
            key: keys::topic(topic),
            inbox: keys::inbox(source, group),
            exclusive: topic == names::dead_letter_topic(source, group),
            movable: keys::root(topic) == keys::root(source),
            pages: Pages::new(),
        }
    }

    fn is_ours(&self, message: &Message) -> bool {
        let says = |name, value: &str| message.headers.get_str(name) == Some(value);
        self.exclusive || (says(names::DEAD_TOPIC, &self.source) && says(names::DEAD_GROUP, &self.group))
    }

    async fn range(&self, from: &str, to: &str, count: usize) -> Result<Vec<Entry>, Error> {
        let mut range = redis::cmd("XRANGE");
        range.arg(&self.key).arg(from).arg(to).arg("COUNT").arg(count);
        let reply = self.link.run(&range, COMMAND).await.map_err(|failure| {
            self.pages.failed();
            failure.error
        })?;
        let Value::Array(entries) = reply else {
            return Ok(Vec::new());
        };
        let read = |entry| Entry::read(Stream::Topic, entry, 0);
        let entries: Vec<Entry> = entries.into_iter().filter_map(read).collect();
        self.pages.came(&entries);
        Ok(entries)
    }

    /// How many to read at once.
    fn page(&self, most: usize) -> usize {
        self.pages.count(most, 1).min(PAGE)
    }

    /// Does this with each, a page at once.
    async fn each<'a, F: Future<Output = Result<(), Error>>>(
        &self,
        ids: &'a [Bytes],
        one: impl Fn(&'a Bytes) -> F,
    ) -> Vec<Result<(), Error>> {
        let mut answers = Vec::with_capacity(ids.len());
        let mut left = ids;
        while !left.is_empty() {
            let (now, later) = left.split_at(self.page(left.len()));
            answers.extend(join_all(now.iter().map(&one)).await);
            left = later;
        }
        answers
    }

    /// The dead letter with this id; `None` if it is gone.
    async fn find(&self, id: &Bytes) -> Result<Option<(String, Message)>, Error> {
        let id = checked(id)?.to_string();
        let found = self.range(&id, &id, 1).await?.pop();
        match found {
            Some(entry) if self.is_ours(&entry.message) => Ok(Some((id, entry.message))),
            Some(_) => Err(Error::new(
                ErrorKind::Rejected,
                format!("dead letter {id} belongs to another group"),
            )),
            None => Ok(None),
        }
    }

    async fn replay_one(&self, id: &Bytes) -> Result<(), Error> {
        let Some((id, dead)) = self.find(id).await? else {
            return Ok(());
        };
        let copy = replay_copy(&dead);
        if self.movable {
            let mut replay = self.link.script(Name::Replay, &[&self.key, &self.inbox]);
            replay.arg(&id).arg(self.publisher.frame_aside(&copy));
            return self
                .link
                .run(&replay, COMMAND)
                .await
                .map(|_| ())
                .map_err(|failure| failure.error);
        }
        let outgoing = Outgoing::to_inbox(self.source.as_str(), self.group.as_str(), copy);
        for answer in self.publisher.publish(vec![outgoing]).await {
            answer?;
        }
        self.delete(&id).await
    }

    async fn purge_one(&self, id: &Bytes) -> Result<(), Error> {
        match self.find(id).await? {
            Some((id, _)) => self.delete(&id).await,
            None => Ok(()),
        }
    }

    async fn delete(&self, id: &str) -> Result<(), Error> {
        let mut delete = redis::pipe();
        delete.cmd("XDEL").arg(&self.key).arg(id);
        let answers = self
            .link
            .pipeline(&delete, COMMAND)
            .await
            .map_err(|failure| failure.error)?;
        match answers.into_iter().next() {
            Some(Value::ServerError(error)) => Err(from_server(&error)),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl DeadLetters for Letters {
    async fn browse(&mut self, after: Option<&Bytes>, max: usize) -> Result<Vec<DeadLetter>, Error> {
        let mut from = match after {
            Some(id) => format!("({}", checked(id)?),
            None => "-".to_owned(),
        };
        let mut letters = Vec::new();
        while letters.len() < max {
            let page = self.range(&from, "+", self.page(max)).await?;
            let Some(last) = page.last() else { break };
            from = format!("({}", last.id);
            let ours = page.into_iter().filter(|entry| self.is_ours(&entry.message));
            letters.extend(ours.take(max - letters.len()).map(|entry| DeadLetter {
                id: entry.id.to_string().into(),
                message: entry.message,
            }));
        }
        Ok(letters)
    }

    async fn replay(&mut self, ids: &[Bytes]) -> Vec<Result<(), Error>> {
        self.each(ids, |id| self.replay_one(id)).await
    }

    async fn purge(&mut self, ids: &[Bytes]) -> Vec<Result<(), Error>> {
        self.each(ids, |id| self.purge_one(id)).await
    }
}

fn checked(id: &Bytes) -> Result<EntryId, Error> {
    let wrong = || {
        Error::new(
            ErrorKind::Rejected,
            "this is not the id of a dead letter: it has the form 1700000000000-0",
        )
    };
    std::str::from_utf8(id)
        .ok()
        .and_then(|id| id.parse().ok())
        .ok_or_else(wrong)
}
