//! Settlements whose emits lie in the topic's own slot: retries to the inbox, dead letters to the default topic. The script
//! adds and acknowledges in one, or does neither.

use postrider_contract::{Address, Outgoing, Settled};
use redis::{Cmd, Value};

use crate::failure::{from_text, unexpected};
use crate::fields::{self, bytes};
use crate::keys;
use crate::link::COMMAND;
use crate::mover::{Kind, Route};
use crate::publish::milliseconds_until;
use crate::scripts::Name;
use crate::subscription::entry::Stream;
use crate::subscription::settler::{Item, Outcome, TableSettler, failed};

/// One call carries at most so much: it blocks the server meanwhile.
const BYTES: usize = 4_000_000;
const COUNT: usize = 200;
/// More fields do not fit into one Lua call.
const FIELDS: usize = 2_000;

/// One emit, as the script takes it.
enum Step<'a> {
    Delay { milliseconds: u64, frame: Vec<u8> },
    Frame(Vec<u8>),
    Entry(&'a postrider_contract::Message),
}

impl TableSettler {
    /// Whether the script can do all of this.
    pub(crate) fn is_movable(&self, emit: &[Outgoing]) -> bool {
        let root = keys::root(&self.source.topic);
        // No replica is waited for: it gets copy and acknowledgement together, and without both has the original.
        !self.broadcast
            && emit.iter().all(|outgoing| match &outgoing.to {
                Address::Inbox { topic, .. } => keys::root(topic) == root && outgoing.message.size() <= BYTES,
                Address::Topic(topic) => {
                    keys::root(topic) == root
                        && self.topics.is_stream(topic)
                        && outgoing.not_before.is_none()
                        && fields::count(&outgoing.message) <= FIELDS
                        && outgoing.message.size() <= BYTES
                        && self.publisher.check(topic, &outgoing.message).is_ok()
                }
                _ => false,
            })
    }

    /// The calls that carry out these.
    pub(crate) fn moves(&self, items: Vec<Item>) -> Vec<impl Future<Output = Vec<Outcome>> + '_> {
        let mut calls = Vec::new();
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let (mut chunk, mut size) = (Vec::new(), 0);
            while let Some(item) = items
                .next_if(|item| chunk.is_empty() || (chunk.len() < COUNT && size + weight(item) <= BYTES))
            {
                size += weight(&item);
                chunk.push(item);
            }
            calls.push(self.move_chunk(chunk));
        }
        calls
    }

    async fn move_chunk(&self, chunk: Vec<Item>) -> Vec<Outcome> {
        let (call, delays) = self.call(&chunk);
        let reply = match self.link.run(&call, COMMAND).await {
            Ok(reply) => reply,
            Err(failure) => {
                return chunk
                    .into_iter()
                    .map(|item| failed(item, failure.error.clone()))
                    .collect();
            }
        };
        for (route, milliseconds) in delays {
            self.mover.watch(route);
            self.mover.due_in(milliseconds);
        }
        let mut answers = match reply {
            Value::Array(answers) => answers.into_iter(),
            _ => Vec::new().into_iter(),
        };
        let outcome = |item: Item| match answers.next() {
            Some(Value::Int(1)) => (item.index, item.token, Settled::Done),
            Some(Value::Int(_)) => (item.index, item.token, Settled::Stale),
            Some(other) => {
                let text = bytes(other).unwrap_or_default();
                failed(item, from_text(&String::from_utf8_lossy(&text)))
            }
            None => failed(item, unexpected("the move script answered for too few")),
        };
        chunk.into_iter().map(outcome).collect()
    }

    fn call(&self, chunk: &[Item]) -> (Cmd, Vec<(Route, u64)>) {
        let topic = self.source.key(Stream::Topic).to_owned();
        let mut targets = vec![topic, self.source.inbox.clone()];
        let mut delays: Vec<(Route, u64)> = Vec::new();
        let mut steps = Vec::with_capacity(chunk.len());
        for outgoing in chunk.iter().flat_map(|item| &item.emit) {
            let (target, step) = self.step(outgoing, &mut delays);
            let at = targets
                .iter()
                .position(|known| *known == target)
                .unwrap_or_else(|| {
                    targets.push(target);
                    targets.len() - 1
                });
            steps.push((at + 1, step));
        }
        let keys: Vec<&str> = targets.iter().map(String::as_str).collect();
        let mut call = self.link.script(Name::Move, &keys);
        call.arg(&*self.source.group).arg(&*self.source.consumer);
        let mut steps = steps.into_iter();
        for item in chunk {
            call.arg(item.place.0 as usize + 1)
                .arg(item.place.1.to_string())
                .arg(item.emit.len());
            for (target, step) in steps.by_ref().take(item.emit.len()) {
                call.arg(target);
                match step {
                    Step::Delay { milliseconds, frame } => call.arg("delay").arg(milliseconds).arg(frame),
                    Step::Frame(frame) => call.arg("frame").arg(frame),
                    Step::Entry(message) => {
                        call.arg("entry").arg(2 * fields::count(message));
                        fields::add_to(&mut call, message);
                        &mut call
                    }
                };
            }
        }
        (call, delays)
    }

    /// An emit's key, and what happens there.
    fn step<'a>(&self, outgoing: &'a Outgoing, delays: &mut Vec<(Route, u64)>) -> (String, Step<'a>) {
        match &outgoing.to {
            Address::Inbox { topic, group } => {
                let (from, to, kind) = (
                    keys::delayed(topic, group),
                    keys::inbox(topic, group),
                    Kind::Inbox,
                );
                let frame = self.publisher.frame_aside(&outgoing.message);
                match outgoing.not_before.and_then(milliseconds_until) {
                    None => (to, Step::Frame(frame)),
                    Some(milliseconds) => {
                        let key = from.clone();
                        match delays.iter_mut().find(|(route, _)| route.from == from) {
                            Some((_, soonest)) => *soonest = milliseconds.min(*soonest),
                            None => delays.push((Route { from, to, kind }, milliseconds)),
                        }
                        (key, Step::Delay { milliseconds, frame })
                    }
                }
            }
            Address::Topic(topic) => (keys::topic(topic), Step::Entry(&outgoing.message)),
            // Not movable: never here.
            _ => (String::new(), Step::Entry(&outgoing.message)),
        }
    }
}

fn weight(item: &Item) -> usize {
    item.emit.iter().map(|outgoing| outgoing.message.size()).sum()
}
