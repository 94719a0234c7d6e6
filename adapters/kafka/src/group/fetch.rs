//! The consumer's own thread: polls always, so that membership never depends on how slow handlers are.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::Offset;

use super::commit::{Which, commit};
use super::health::Obstacle;
use super::member::Member;
use super::renewal::{check, rewind};
use super::routes::Route;
use super::state::{Awaited, Shared, State};
use crate::record::{Arena, Inbound, inbound};

/// The longest that a poll waits: how soon a request to stop, pause or resume is seen.
const TICK: Duration = Duration::from_millis(100);
/// The same while fetching stands still for a full mailbox.
const SHORT_TICK: Duration = Duration::from_millis(10);
/// How many records are taken before others get the lock, and about how many bytes.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 1 << 20;
/// From so many records on a batch has a chunk of memory to itself: of less it would waste too much.
const LARGE_BATCH: usize = 64;
/// How long a full mailbox is given to be half emptied: being woken for each message that it gives away costs more than
/// fetching that message.
const DRAIN: Duration = Duration::from_millis(10);
/// How often it is looked for what takes offsets and is no message.
const LOOK: Duration = Duration::from_secs(1);
/// How long a full mailbox holds up the poll before its partitions are paused instead, which throws away what librdkafka
/// has fetched of them.
const STALL: Duration = Duration::from_secs(1);

struct Fetched {
    lane: usize,
    offset: i64,
    inbound: Inbound,
}

/// Fetches until the consumer is to leave, or is cut off.
pub(crate) struct Fetcher {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<Member>>,
    /// The topic and the retry topic, with the lanes of their partitions.
    lanes: Vec<(Arc<Route>, Vec<Option<usize>>)>,
    arena: Arena,
    batch: Vec<Fetched>,
    looked: Instant,
    /// When it was last decided what is paused.
    flowed: Instant,
}

impl Fetcher {
    pub(crate) fn new(shared: Arc<Shared>, consumer: Arc<BaseConsumer<Member>>) -> Self {
        let routes = &consumer.context().routes;
        let lanes = routes.all().map(|route| (route.clone(), Vec::new())).collect();
        Self {
            shared,
            lanes,
            consumer,
            arena: Arena::default(),
            batch: Vec::with_capacity(BATCH),
            looked: Instant::now(),
            flowed: Instant::now(),
        }
    }

    /// Polls until the consumer is to leave, or is cut off.
    pub(crate) fn run(&mut self) {
        while let Some(wait) = self.prepare() {
            self.fill(wait);
            check(&self.shared, &self.consumer);
            self.mark_assignment();
            if !self.batch.is_empty() {
                self.deliver();
            }
            if self.looked.elapsed() >= LOOK {
                self.looked = Instant::now();
                self.pass();
            }
        }
    }

    /// Brings due retries, makes room, pauses and resumes. Answers how long to poll; `None`: it is over.
    fn prepare(&mut self) -> Option<Duration> {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        if state.rewinding {
            drop(state);
            rewind(&shared, &self.consumer);
            state = shared.lock();
        }
        if !state.is_working() {
            return None;
        }
        let due = state.release_due(SystemTime::now());
        shared.wake(&mut state);
        state = Self::make_room(&shared, state);
        let mut choked = false;
        let prefetch = state.prefetch;
        for mailbox in &mut state.boxes {
            mailbox.choked = mailbox.size >= prefetch || (mailbox.choked && mailbox.size > prefetch / 2);
            choked |= mailbox.choked;
        }
        let now = Instant::now();
        let passed = now.duration_since(std::mem::replace(&mut self.flowed, now));
        let (pause, resume) = flow(&mut state, passed);
        let held_up = state.held_up();
        let open = state.is_working();
        drop(state);
        shared.note(Obstacle::HeldUp, held_up.as_ref());
        // An error means that the partition has just gone.
        if let Some(pause) = pause {
            let _ = self.consumer.pause(&pause);
        }
        if let Some(resume) = resume {
            let _ = self.consumer.resume(&resume);
        }
        let tick = if choked { SHORT_TICK } else { TICK };
        open.then(|| due.map_or(tick, |due| due.clamp(Duration::from_millis(1), tick)))
    }

    /// Waits a while for a full mailbox to be emptied, if it is not already left to itself.
    fn make_room<'a>(
        shared: &'a Shared,
        mut state: std::sync::MutexGuard<'a, State>,
    ) -> std::sync::MutexGuard<'a, State> {
        if state.has_come(Awaited::Room) {
            return state;
        }
        let begun = Instant::now();
        for (awaited, until) in [(Awaited::MuchRoom, DRAIN), (Awaited::Room, STALL)] {
            while state.is_working() && !state.has_come(awaited) {
                let left = until.saturating_sub(begun.elapsed());
                if left.is_zero() {
                    break;
                }
                state.awaited = Some(awaited);
                let waited = shared.flow.wait_timeout(state, left);
                state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
            }
        }
        state.awaited = None;
        state
    }

    /// Takes what librdkafka has, waiting for the first record only.
    fn fill(&mut self, wait: Duration) {
        let consumer = self.consumer.clone();
        let mut wait = wait;
        let mut bytes = 0;
        while self.batch.len() < BATCH && bytes < BATCH_BYTES {
            match consumer.poll(wait) {
                Some(Ok(record)) => {
                    bytes += record.payload_len();
                    self.take(&record);
                }
                // An error has been told to the context, with its reason.
                Some(Err(_)) | None => return,
            }
            wait = Duration::ZERO;
        }
    }

    fn take(&mut self, record: &BorrowedMessage<'_>) {
        let topic = record.topic();
        let Some((route, lanes)) = self.lanes.iter_mut().find(|(route, _)| route.name == topic) else {
            return;
        };
        let partition = record.partition();
        let place = partition.unsigned_abs() as usize;
        if lanes.len() <= place {
            lanes.resize(place + 1, None);
        }
        let known = lanes.get_mut(place);
        let lane = match known {
            Some(Some(lane)) => *lane,
            Some(unknown) => {
                let Some(lane) = self.shared.lock().lane_of(&route.name, partition) else {
                    return;
                };
                *unknown = Some(lane);
                lane
            }
            None => return,
        };
        self.batch.push(Fetched {
            lane,
            offset: record.offset(),
            inbound: inbound(record, &mut self.arena, route.return_path),
        });
    }

    /// A new assignment is marked as in use before anything of it is delivered. Not before that is it ready: while a commit
    /// waits for a broker that is away, nothing else is heard.
    fn mark_assignment(&self) {
        if !self.shared.lock().fresh {
            return;
        }
        let marked = commit(&self.shared, &self.consumer, Which::Dirty);
        let mut state = self.shared.lock();
        state.fresh = false;
        match marked {
            Ok(()) => state.recover(),
            Err(error) => {
                tracing::debug!(%error, "the first commit of an assignment failed and is tried again");
            }
        }
    }

    /// Hands a batch to the mailboxes.
    fn deliver(&mut self) {
        let now = SystemTime::now();
        let mut state = self.shared.lock();
        if self.batch.len() >= LARGE_BATCH {
            self.arena.turn_over();
        }
        for fetched in self.batch.drain(..) {
            state.accept(fetched.lane, fetched.offset, fetched.inbound, now);
        }
        self.shared.wake(&mut state);
    }

    /// Passes what librdkafka keeps to itself, such as the ends of transactions: it has handed out all else that lies before
    /// its position, and everything of that has been delivered.
    fn pass(&self) {
        let Ok(positions) = self.consumer.position() else {
            return;
        };
        let mut state = self.shared.lock();
        for element in positions.elements() {
            if let Offset::Offset(offset) = element.offset() {
                state.pass(element.topic(), element.partition(), offset);
            }
        }
        self.shared.wake(&mut state);
    }
}

/// Which partitions are to be paused and resumed now, so long after the last time.
pub(super) fn flow(
    state: &mut State,
    passed: Duration,
) -> (Option<TopicPartitionList>, Option<TopicPartitionList>) {
    let (mut pause, mut resume) = (None, None);
    state.weigh_backlogs();
    for id in 0..state.lanes.len() {
        let Some(wanted) = state
            .lanes
            .get(id)
            .filter(|lane| lane.is_assigned())
            .map(|lane| state.should_pause(lane))
        else {
            continue;
        };
        let Some(lane) = state.lanes.get_mut(id) else {
            continue;
        };
        lane.note_time(passed);
        if lane.paused == wanted {
            continue;
        }
        lane.paused = wanted;
        let list = if wanted { &mut pause } else { &mut resume };
        list.get_or_insert_with(TopicPartitionList::new)
            .add_partition(&lane.route.name, lane.partition);
    }
    (pause, resume)
}
