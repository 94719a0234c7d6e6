//! The loop behind the publisher. It owns the channel, so that the order of sending is the order of asking.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::poll;
use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::Confirmation;
use postrider_contract::{ByteString, Error, ErrorKind};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;

use crate::confirms::{Flights, Slot};
use crate::fate::{Fate, verdict};
use crate::fault;
use crate::link::Link;
use crate::publisher::{Answer, Batch, Request};
use crate::session::{Flight, Session, fly, open_session};
use crate::topology::Topology;

/// So many bytes of publishes that nobody waits for any more may be without a confirm. The client library keeps what it
/// cannot write, and a broker that does not get on with one queue stops reading.
const MOST_GIVEN_UP: usize = 16 << 20;
/// So many batches may wait, in any case, that nobody waits for any more.
const FEW: usize = 64;

/// A batch whose answers are coming in.
struct Open {
    batch: Batch,
    answers: Vec<Option<Answer>>,
    missing: usize,
    /// How many were sent, from the first.
    sent: usize,
}

impl Open {
    /// Nothing of it was sent, and nobody waits for it any more.
    fn is_abandoned(&self) -> bool {
        self.sent == 0 && self.batch.answer.is_closed()
    }
}

pub(crate) struct PublishLoop {
    link: Arc<Link>,
    topology: Arc<Topology>,
    session: Option<Session>,
    connecting: Option<BoxFuture<'static, Result<Session, Error>>>,
    open: HashMap<u64, Open>,
    next_batch: u64,
    /// Batches that have not been sent, or of the first not all.
    waiting: VecDeque<u64>,
    /// How many came since those that wait were looked through.
    unlooked: usize,
    /// Batches in the order of their deadlines, which is the order they came in.
    deadlines: VecDeque<u64>,
    flying: FuturesUnordered<Flight>,
    flights: Flights,
    /// About how many bytes those of them take that nobody waits for any more.
    given_up: usize,
    last_error: Option<Error>,
    /// An exchange was found missing.
    was_missing: bool,
    finishing: Option<oneshot::Sender<()>>,
}

impl PublishLoop {
    pub(crate) fn new(link: Arc<Link>, topology: Arc<Topology>) -> Self {
        Self {
            link,
            topology,
            session: None,
            connecting: None,
            open: HashMap::new(),
            next_batch: 0,
            waiting: VecDeque::new(),
            unlooked: 0,
            deadlines: VecDeque::new(),
            flying: FuturesUnordered::new(),
            flights: Flights::default(),
            given_up: 0,
            last_error: None,
            was_missing: false,
            finishing: None,
        }
    }

    pub(crate) async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        loop {
            self.send_waiting().await;
            while self
                .deadlines
                .front()
                .is_some_and(|batch| !self.open.contains_key(batch))
            {
                self.deadlines.pop_front();
            }
            if self.open.is_empty()
                && let Some(done) = self.finishing.take()
            {
                let _ = done.send(());
                return;
            }
            let deadline = self.deadlines.front().and_then(|batch| self.open.get(batch));
            let deadline = deadline.map(|open| open.batch.deadline);
            tokio::select! {
                request = requests.recv(), if self.finishing.is_none() => {
                    let Some(request) = request else { return };
                    self.take(request);
                    while let Ok(request) = requests.try_recv() {
                        self.take(request);
                    }
                }
                Some(landed) = self.flying.next(), if !self.flying.is_empty() => self.land(landed),
                connected = connected(&mut self.connecting) => {
                    self.connecting = None;
                    match connected {
                        Ok(session) => {
                            self.session = Some(session);
                            self.was_missing = false;
                        }
                        Err(error) => self.unreachable(error),
                    }
                }
                // Blocked, unblocked or broken, or there is room for more: the next round looks.
                () = news(self.session.as_mut(), !self.waiting.is_empty()) => {}
                () = async { match deadline { Some(at) => sleep_until(at).await, None => pending().await } } => {
                    self.expire();
                }
            }
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Publish(batch) => {
                self.next_batch += 1;
                let count = batch.parcels.len();
                let open = Open {
                    answers: (0..count).map(|_| None).collect(),
                    missing: count,
                    sent: 0,
                    batch,
                };
                self.open.insert(self.next_batch, open);
                self.waiting.push_back(self.next_batch);
                self.deadlines.push_back(self.next_batch);
                self.unlooked += 1;
                if self.unlooked > FEW + self.waiting.len() / 2 {
                    self.drop_abandoned();
                }
            }
            Request::Finish(done) => self.finishing = Some(done),
        }
    }

    /// Lets go of what nobody waits for any more: with no broker to be reached, it would fill the memory until its deadline.
    fn drop_abandoned(&mut self) {
        self.unlooked = 0;
        self.waiting.retain(|number| {
            let waits = self.open.get(number).is_some_and(|open| !open.is_abandoned());
            if !waits {
                self.open.remove(number);
            }
            waits
        });
    }

    /// Sends what waits, where there is a channel that takes it; otherwise sees to it that there will be one.
    async fn send_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if self.session.as_ref().is_some_and(|session| !session.works()) {
            self.session = None;
            self.break_off();
        }
        let Some(session) = &self.session else {
            if self.connecting.is_none() {
                let (link, topology) = (self.link.clone(), self.topology.clone());
                self.connecting = Some(open_session(link, topology, self.was_missing).boxed());
            }
            return;
        };
        if session.blocked() {
            self.last_error = Some(Error::new(
                ErrorKind::Unavailable,
                "RabbitMQ blocks publishing: it is short of memory or disk",
            ));
            return;
        }
        let (channel, unwritten) = (session.channel.clone(), session.unwritten.clone());
        while let Some(&number) = self.waiting.front() {
            let open = self.open.get_mut(&number);
            let Some(open) = open.filter(|open| !open.is_abandoned()) else {
                self.open.remove(&number);
                self.waiting.pop_front();
                continue;
            };
            let parcels = &mut open.batch.parcels;
            while unwritten.has_room()
                && let Some(mut parcel) = parcels.next()
            {
                let slot = Slot {
                    batch: number,
                    index: open.sent,
                    exchange: parcel.exchange.clone(),
                    routing_key: parcel.routing_key.clone(),
                    mark: parcel.mark.clone(),
                    unroutable: parcel.unroutable,
                    message_id: parcel.message_id.clone(),
                    payload: parcel.payload.len(),
                    returned: false,
                    given_up: false,
                    late: parcel.late.take(),
                };
                open.sent += 1;
                let writing = unwritten.add(slot.size());
                let flight = self.flights.add(slot);
                let mut future: Flight = Box::pin(fly(channel.clone(), parcel, writing, flight));
                // The first poll queues the frames, so that the order on the wire is this order. It is never ready then,
                // except on a channel that has just broken, which takes nothing more: the next round looks.
                if let std::task::Poll::Ready(landed) = poll!(future.as_mut()) {
                    self.flying.push(Box::pin(std::future::ready(landed)));
                    return;
                }
                self.flying.push(future);
            }
            if !parcels.as_slice().is_empty() {
                return;
            }
            self.waiting.pop_front();
        }
    }

    /// Takes in what the broker answered.
    fn land(&mut self, first: (u64, lapin::Result<Confirmation>)) {
        let mut certain = vec![self.note(first)];
        self.drain(&mut certain);
        // lapin resolves the confirms of one acknowledgement one after the other, and the return of one may ride on the
        // last of them. It holds a lock meanwhile, which this call takes and lets go: after it, whatever was resolved
        // beside those already seen is there to be seen too.
        while !certain.is_empty() {
            if let Some(session) = &self.session {
                drop(session.channel.wait_for_confirms().now_or_never());
            }
            let mut later = Vec::new();
            self.drain(&mut later);
            for (flight, fate) in certain {
                if let Some(slot) = self.flights.remove(flight) {
                    let answer = verdict(&slot, fate);
                    if !slot.given_up {
                        self.settle(slot.batch, slot.index, answer);
                        continue;
                    }
                    self.given_up = self.given_up.saturating_sub(slot.size());
                    if let Some(late) = slot.late {
                        let _ = late.send(answer);
                    }
                }
            }
            certain = later;
        }
    }

    fn drain(&mut self, landed: &mut Vec<(u64, Fate)>) {
        while let Some(Some(one)) = self.flying.next().now_or_never() {
            let one = self.note(one);
            landed.push(one);
        }
    }

    /// Notes the return that came with a confirm, whosever it is.
    fn note(&mut self, (flight, result): (u64, lapin::Result<Confirmation>)) -> (u64, Fate) {
        let confirmation = match result {
            Ok(confirmation) => confirmation,
            Err(error) => {
                self.was_missing |= fault::reply_code(&error) == Some(fault::NOT_FOUND);
                return (flight, Fate::Lost(error));
            }
        };
        let fate = if confirmation.is_nack() {
            Fate::Refused
        } else {
            Fate::Taken
        };
        if let Some(message) = confirmation.take_message() {
            let delivery = &message.delivery;
            self.flights.returned(
                delivery.exchange.as_str(),
                delivery.routing_key.as_str(),
                &delivery.properties,
            );
        }
        (flight, fate)
    }

    fn settle(&mut self, batch: u64, index: usize, answer: Answer) {
        let Some(open) = self.open.get_mut(&batch) else {
            return;
        };
        if open.answers[index].is_none() {
            open.answers[index] = Some(answer);
            open.missing -= 1;
        }
        if open.missing == 0
            && let Some(open) = self.open.remove(&batch)
        {
            let _ = open
                .batch
                .answer
                .send(open.answers.into_iter().flatten().collect());
        }
    }

    /// No connection: what cannot be mended is answered at once, the rest waits for its deadline.
    fn unreachable(&mut self, error: Error) {
        if error.kind() != ErrorKind::Unavailable {
            for number in std::mem::take(&mut self.waiting) {
                self.answer_unsent(number, &error);
            }
        }
        self.last_error = Some(error);
    }

    fn expire(&mut self) {
        let Some(number) = self.deadlines.pop_front() else {
            return;
        };
        self.waiting.retain(|waiting| *waiting != number);
        let session = self.session.as_ref();
        let why = if session.is_some_and(|session| session.works() && !session.blocked()) {
            ": RabbitMQ does not read what was sent before".to_owned()
        } else {
            self.last_error
                .as_ref()
                .map_or_else(String::new, |error| format!(": {error}"))
        };
        let error = Error::new(
            ErrorKind::Unavailable,
            format!("it could not be sent within `publish_timeout`{why}"),
        );
        self.answer_unsent(number, &error);
        let error = Error::new(
            ErrorKind::Unconfirmed,
            "no confirm came within `publish_timeout`: it may or may not be there; send it again under the same id",
        );
        // Each under its own id.
        for (index, id, size) in self.flights.give_up(number) {
            self.given_up += size;
            self.settle(number, index, Err(with_id(&error, id)));
        }
        if self.given_up > MOST_GIVEN_UP {
            self.begin_anew();
        }
    }

    /// Gives up a channel whose confirms do not come, with what is in flight on it.
    fn begin_anew(&mut self) {
        tracing::warn!(
            bytes = self.given_up,
            "RabbitMQ does not confirm what is published, as when a queue has lost its majority: another channel is opened"
        );
        if let Some(session) = self.session.take() {
            drop(session.channel.close(200, "OK".into()).now_or_never());
        }
        self.break_off();
        self.flying.clear();
        self.given_up = 0;
        let error = Error::new(
            ErrorKind::Unconfirmed,
            "its channel was given up before the confirm came: send it again under the same id",
        );
        for slot in std::mem::take(&mut self.flights).into_slots() {
            self.settle(slot.batch, slot.index, Err(with_id(&error, slot.message_id)));
        }
    }

    /// The rest of a batch whose beginning went with a channel that has ended is not sent after it: the beginning may not have
    /// arrived, and sent again it would come behind.
    fn break_off(&mut self) {
        let begun = |number: &&u64| self.open.get(number).is_some_and(|open| open.sent > 0);
        if let Some(number) = self.waiting.front().filter(begun).copied() {
            self.waiting.pop_front();
            let text = "the connection was lost before it was sent, in the middle of its batch";
            self.answer_unsent(number, &Error::new(ErrorKind::Unavailable, text));
        }
    }

    fn answer_unsent(&mut self, number: u64, error: &Error) {
        let unsent = self.open.get(&number).map(|open| open.sent..open.answers.len());
        for index in unsent.into_iter().flatten() {
            self.settle(number, index, Err(error.clone()));
        }
    }
}

fn with_id(error: &Error, id: Option<ByteString>) -> Error {
    match id {
        Some(id) => error.clone().with_message_id(id),
        None => error.clone(),
    }
}

async fn connected(
    connecting: &mut Option<BoxFuture<'static, Result<Session, Error>>>,
) -> Result<Session, Error> {
    match connecting {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn news(session: Option<&mut Session>, more: bool) {
    let Some(session) = session else {
        return pending().await;
    };
    tokio::select! {
        Some(_) = session.events.next() => {}
        () = session.unwritten.room(), if more => {}
        else => pending().await,
    }
}
