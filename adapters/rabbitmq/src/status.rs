//! Depths, as far as AMQP tells them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use postrider_contract::{Error, Order, Sharing, Spec, Status, Topology as Mode};
use tokio::sync::Mutex;

use crate::dead_index::{DeadIndex, Owner};
use crate::declare::Declarer;
use crate::stream::StreamReader;
use crate::subscription::Shared;

/// One call reads at most so much of a stream; the next goes on.
const AT_ONCE: usize = 50_000;
/// The count of a stream is a metric: what it counts may be gone.
const PATIENCE: Duration = Duration::from_millis(500);

/// A stream, and the topic and group whose dead letters are counted in it.
type Key = (String, Arc<str>, Arc<str>);

/// Dead-letter streams read so far.
#[derive(Default)]
pub(crate) struct Depths {
    read: Mutex<HashMap<Key, Counted>>,
}

#[derive(Default)]
struct Counted {
    index: DeadIndex,
    /// The first offset that was kept when reading began.
    first: Option<u64>,
    /// How many entries the server told at last.
    seen: u32,
}

impl Depths {
    /// An answer for each: what waits, from the queue itself; dead letters, from the stream, some seconds old. What is
    /// unsettled or in the delay ladder AMQP does not tell by group.
    pub(crate) async fn of(&self, shared: &Arc<Shared>, specs: &[Spec]) -> Result<Vec<Status>, Error> {
        let live = shared.lookout.get().await?;
        let mut looking = Declarer::new(&live, Mode::Verify);
        let mut statuses = Vec::with_capacity(specs.len());
        for spec in specs {
            let mut status = Status::default();
            if spec.sharing == Sharing::Group {
                let ordered = spec.order == Order::ByKey;
                let queue = shared.topology.layout().queue(spec.topic(), &spec.group, ordered);
                status.waiting = looking
                    .look(&queue)
                    .await?
                    .map(|queue| u64::from(queue.message_count()));
            }
            if let Some(topic) = &spec.dead_letter {
                let stream = shared.topology.layout().stream(topic);
                let looked = looking.look(&stream).await?;
                let key = (stream, spec.topic().clone(), spec.group.clone());
                status.dead = match looked {
                    None => {
                        self.read.lock().await.remove(&key);
                        None
                    }
                    Some(queue) => self.dead(shared, key, queue.message_count()).await?,
                };
            }
            statuses.push(status);
        }
        Ok(statuses)
    }

    async fn dead(&self, shared: &Shared, key: Key, count: u32) -> Result<Option<u64>, Error> {
        let (stream, topic, group) = &key;
        let owner = Owner::new(topic, group);
        let mut all = self.read.lock().await;
        let counted = all.entry(key.clone()).or_default();
        let before = std::mem::replace(&mut counted.seen, count);
        if count < before {
            // It was cut or made anew, or the server was started anew and does not count yet.
            *counted = Counted::default();
            return Ok(None);
        }
        counted.index.forget_resolved();
        let behind = |counted: &Counted| counted.index.next() < counted.first.unwrap_or(0) + u64::from(count);
        if !behind(counted) {
            return Ok(Some(counted.index.open_count()));
        }
        let mut reader = StreamReader::open(&shared.lookout, stream, counted.index.next()).await?;
        for _ in 0..AT_ONCE {
            let Some(entry) = reader.next_within(PATIENCE).await? else {
                break;
            };
            counted.first.get_or_insert(entry.offset);
            counted.index.add(&owner, &entry);
            if !behind(counted) {
                return Ok(Some(counted.index.open_count()));
            }
        }
        Ok(None)
    }
}
