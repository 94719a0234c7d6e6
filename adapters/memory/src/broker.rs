//! The broker as an instance sees it.

use std::sync::Arc;
use std::time::Duration;

use postrider_contract::{
    Broker, Capabilities, Client, DeadLetters, Error, ErrorKind, Outgoing, Problem, Receipt, Sharing, Spec,
    Status, Subscription, Topology, async_trait,
};

use crate::connection::{Connection, Sent};
use crate::dead::{self, MemoryDeadLetters};
use crate::receiver::MemoryReceiver;
use crate::settings::ConnectionSettings;
use crate::settler::{Handle, MemorySettler};
use crate::state::{Hub, State};

/// One instance's connection to the embedded broker.
pub(crate) struct MemoryBroker {
    connection: Arc<Connection>,
}

impl MemoryBroker {
    pub(crate) fn new(hub: Arc<Hub>, settings: ConnectionSettings, _client: Client) -> Self {
        let connection = Arc::new(Connection::new(hub, settings));
        Self { connection }
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    fn capabilities(&self) -> &Capabilities {
        &self.connection.capabilities
    }

    async fn plan(&self, all: &[Spec], mode: Topology) -> Result<(), Vec<Problem>> {
        if let Err(error) = self.connection.check_open() {
            let problem = |spec: &Spec| Problem {
                listener: spec.listener.clone(),
                what: error.to_string(),
                help: "connect again".into(),
            };
            return Err(all.iter().map(problem).collect());
        }
        let able = &self.connection.capabilities;
        self.connection.hub.lock().plan(all, mode, able)
    }

    async fn open(&self, all: Vec<Spec>) -> Result<Vec<Subscription>, Error> {
        self.connection.check_open()?;
        let mut state = self.connection.hub.lock();
        let groups: Vec<_> = all
            .iter()
            .map(|spec| group_for(&mut state, spec))
            .collect::<Result<_, _>>()?;
        let subscribe = |(spec, group): (&Spec, usize)| {
            let index = state.add_consumer(group, self.connection.number, spec.in_flight);
            let handle = Handle::new(self.connection.clone(), &state, index, group);
            let handle = Arc::new(handle);
            Subscription {
                receiver: Box::new(MemoryReceiver::new(handle.clone())),
                settler: Arc::new(MemorySettler::new(handle)),
            }
        };
        Ok(all.iter().zip(groups).map(subscribe).collect())
    }

    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Receipt, Error>> {
        if let Err(error) = self.connection.check_open() {
            return batch.iter().map(|_| Err(error.clone())).collect();
        }
        let mut results = Vec::with_capacity(batch.len());
        let mut waiting = Vec::new();
        {
            let mut state = self.connection.hub.lock();
            for outgoing in batch {
                match self.connection.send(&mut state, outgoing) {
                    Sent::Answer(result) => results.push(result),
                    Sent::Full(outgoing) => {
                        waiting.push((results.len(), outgoing));
                        results.push(Ok(Receipt::default()));
                    }
                }
            }
            state.queues.wake();
        }
        if !waiting.is_empty() {
            let attempt = |state: &mut State, (place, outgoing)| match self.connection.send(state, outgoing) {
                Sent::Answer(result) => {
                    results[place] = result;
                    None
                }
                Sent::Full(outgoing) => Some((place, outgoing)),
            };
            if let Err(error) = self.connection.when_there_is_room(&mut waiting, attempt).await {
                for (place, _) in waiting {
                    results[place] = Err(error.clone());
                }
            }
        }
        results
    }

    fn dead_letters(&self, dead_letter_topic: &str, source: &str, group: &str) -> Box<dyn DeadLetters> {
        let connection = self.connection.clone();
        Box::new(MemoryDeadLetters::new(
            connection,
            dead_letter_topic,
            source,
            group,
        ))
    }

    async fn status(&self, all: &[Spec]) -> Result<Vec<Status>, Error> {
        self.connection.check_open()?;
        let state = self.connection.hub.lock();
        Ok(all.iter().map(|spec| status(&state, spec)).collect())
    }

    async fn close(&self, _deadline: Duration) -> Result<(), Error> {
        self.connection.close();
        Ok(())
    }
}

/// The group that a subscription takes from: a broadcast instance gets one of its own.
fn group_for(state: &mut State, spec: &Spec) -> Result<usize, Error> {
    if spec.sharing == Sharing::Broadcast {
        let topic = state.topic(spec.topic());
        return Ok(state.add_group(topic, spec));
    }
    state.group(spec.topic(), &spec.group).ok_or_else(|| {
        let (topic, group) = (spec.topic(), &spec.group);
        let text = format!("group {group:?} was never declared on topic {topic:?}: plan before opening");
        Error::new(ErrorKind::Topology, text)
    })
}

fn status(state: &State, spec: &Spec) -> Status {
    let topic = state.look(spec.topic()).map(|topic| &state.topics[topic]);
    let (mut waiting, mut retrying, mut unsettled) = (0, 0, 0);
    for &index in topic.into_iter().flat_map(|topic| &topic.groups) {
        let Some(group) = state.queues.get(index).filter(|group| group.name == spec.group) else {
            continue;
        };
        let (from_topic, returning) = group.depths();
        waiting += from_topic;
        retrying += returning;
        let members = group
            .members
            .iter()
            .filter_map(|&member| state.consumers[member].as_ref());
        unsettled += members.map(|member| member.unsettled() as u64).sum::<u64>();
    }
    let dead = spec.dead_letter.as_ref();
    Status {
        waiting: Some(waiting),
        unsettled: Some(unsettled),
        retrying: Some(retrying),
        dead: dead.map(|topic| dead::count(state, topic, spec.topic(), &spec.group)),
    }
}
