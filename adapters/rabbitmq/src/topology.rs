//! Declares, or only checks, what the listeners need.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use lapin::{ExchangeKind, Queue};
use postrider_contract::{Error, ErrorKind, Order, Problem, Sharing, Spec, Start, Topology as Mode, names};

use crate::declare::{Declarer, Fault};
use crate::ladder::{self, Destination};
use crate::layout::{
    DISCARDED, INBOX, LADDER_EXIT, Layout, MARKS, UNROUTED, dead_letter_stream, discarding_queue,
    group_queue, keeping_queue, ladder_exit, ladder_queue,
};
use crate::link::Live;

/// What was planned, and how to bring it back when it goes missing.
pub(crate) struct Topology {
    layout: Layout,
    state: Mutex<State>,
    /// One declaration at a time: they would only repeat each other.
    busy: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    mode: Option<Mode>,
    planned: Vec<Spec>,
    dead_letters: HashSet<Arc<str>>,
}

impl Topology {
    pub(crate) fn new(layout: Layout) -> Self {
        Self {
            layout,
            state: Mutex::default(),
            busy: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether things may be created: unless the application said otherwise.
    pub(crate) fn declares(&self) -> bool {
        self.state().mode != Some(Mode::Verify)
    }

    /// Whether a topic is kept in a stream, as dead-letter topics are.
    pub(crate) fn is_dead_letter_topic(&self, topic: &str) -> bool {
        names::is_dead_letter_topic(topic) || self.state().dead_letters.contains(topic)
    }

    /// Checks and, in its mode, declares everything. All problems, not the first, and whether one of them may pass.
    pub(crate) async fn plan(&self, live: &Live, specs: &[Spec], mode: Mode) -> (Vec<Problem>, bool) {
        {
            let mut state = self.state();
            state.mode = Some(mode);
            state
                .dead_letters
                .extend(specs.iter().filter_map(|spec| spec.dead_letter.clone()));
        }
        let _busy = self.busy.lock().await;
        let (mut problems, mut possible) = (Vec::new(), Vec::new());
        for spec in specs {
            let found = self.impossible(spec);
            if found.is_empty() {
                possible.push(spec);
            }
            problems.extend(found);
        }
        let mut declarer = Declarer::new(live, mode);
        let mut may_pass = false;
        let mut tell = |listener: &Arc<str>, ended: Result<(), Fault>, declarer: &mut Declarer<'_>| {
            let faults = declarer.take_faults().into_iter().chain(ended.err());
            for fault in faults {
                may_pass |= fault.may_pass();
                problems.push(fault.problem(listener));
            }
        };
        let first = specs
            .first()
            .map_or_else(|| Arc::from("(none)"), |spec| spec.listener.clone());
        let ended = self.shared(&mut declarer, needs_the_ladder(specs)).await;
        tell(&first, ended, &mut declarer);
        for spec in possible {
            let ended = self.own_alone(&mut declarer, spec).await;
            tell(&spec.listener, ended, &mut declarer);
        }
        if problems.is_empty() {
            live.declared.store(true, Ordering::Relaxed);
            self.state().planned = specs.to_vec();
        }
        (problems, may_pass)
    }

    /// Declares what one listener needs, after a connection was lost or a queue went missing; what is shared also where an
    /// exchange is found missing. Nothing in verify mode, but that `copy`, the queue of a `broadcast` instance, is bound.
    pub(crate) async fn again(
        &self,
        live: &Live,
        spec: &Spec,
        copy: Option<&str>,
        shared_too: bool,
    ) -> Result<(), Error> {
        let declares = self.declares();
        if !declares && copy.is_none() {
            return Ok(());
        }
        let _busy = self.busy.lock().await;
        let mut declarer = Declarer::new(live, Mode::Declare);
        let mut shared_too = declares && (shared_too || !live.declared.load(Ordering::Relaxed));
        loop {
            if shared_too {
                self.shared(&mut declarer, spec.sharing == Sharing::Group).await?;
            }
            match copy {
                Some(queue) => {
                    declarer
                        .bind_queue(queue, &self.layout.exchange, spec.topic())
                        .await?;
                }
                None => self.group(&mut declarer, spec).await?,
            }
            match declarer.take_faults().into_iter().next() {
                None => break,
                Some(_) if declares && !shared_too && declarer.lacks_exchange() => shared_too = true,
                Some(fault) => return Err(fault.into()),
            }
        }
        if !declares {
            return Ok(());
        }
        // For others there is no ladder.
        if spec.sharing == Sharing::Group {
            live.declared.store(true, Ordering::Relaxed);
        }
        self.dead_letters(&mut declarer, spec).await?;
        let (for_now, for_good): (Vec<_>, Vec<_>) =
            declarer.take_faults().into_iter().partition(Fault::may_pass);
        if let Some(fault) = for_good.into_iter().next() {
            return Err(fault.into());
        }
        // A stream can be out of reach when its queue is not: consuming goes on, and what would become a dead letter
        // stays where it is until it can.
        if let Some(fault) = for_now.into_iter().next() {
            let error = Error::from(fault);
            tracing::warn!(%error, listener = %spec.listener, "dead letters cannot be written for now");
        }
        Ok(())
    }

    /// Declares the exchange that topics are published to; and, where that was found missing, all that was planned, since
    /// bindings go with an exchange. Nothing in verify mode.
    pub(crate) async fn exchange(&self, live: &Live, was_missing: bool) -> Result<(), Error> {
        if !self.declares() {
            return Ok(());
        }
        let mut declarer = Declarer::new(live, Mode::Declare);
        declarer
            .exchange(&self.layout.exchange, ExchangeKind::Topic, None)
            .await?;
        if was_missing {
            let planned = self.state().planned.clone();
            let _busy = self.busy.lock().await;
            self.shared(&mut declarer, needs_the_ladder(&planned)).await?;
            for spec in &planned {
                self.own(&mut declarer, spec).await?;
            }
        }
        match declarer.take_faults().into_iter().next() {
            Some(fault) => Err(fault.into()),
            None => Ok(()),
        }
    }

    /// What every listener shares: the topic exchange, and for groups the inbox and the delay ladder.
    async fn shared(&self, declarer: &mut Declarer<'_>, with_ladder: bool) -> Result<(), Fault> {
        declarer
            .exchange(&self.layout.exchange, ExchangeKind::Topic, None)
            .await?;
        if !with_ladder {
            return Ok(());
        }
        declarer.exchange(INBOX, ExchangeKind::Direct, None).await?;
        declarer.exchange(UNROUTED, ExchangeKind::Topic, None).await?;
        declarer.queue(UNROUTED, keeping_queue()).await?;
        declarer
            .bind_queue(UNROUTED, UNROUTED, &ladder::arrives_any('i'))
            .await?;
        declarer.queue(DISCARDED, discarding_queue()).await?;
        declarer
            .bind_queue(DISCARDED, UNROUTED, &ladder::arrives_any('t'))
            .await?;
        // A retry whose group is gone must leave the ladder, or it would hold up every other.
        declarer
            .exchange(LADDER_EXIT, ExchangeKind::Topic, Some(ladder_exit()))
            .await?;
        let mut next = LADDER_EXIT.to_owned();
        for n in 0..ladder::LEVELS {
            let level = ladder::level(n);
            declarer.exchange(&level, ExchangeKind::Topic, None).await?;
            declarer
                .queue(&level, ladder_queue(ladder::wait_ms(n), &next))
                .await?;
            declarer.bind_queue(&level, &level, &ladder::stays(n)).await?;
            declarer.bind_exchange(&next, &level, &ladder::passes(n)).await?;
            next = level;
        }
        Ok(())
    }

    /// What one listener has to itself.
    async fn own(&self, declarer: &mut Declarer<'_>, spec: &Spec) -> Result<(), Fault> {
        self.dead_letters(declarer, spec).await?;
        self.group(declarer, spec).await
    }

    /// A listener's dead-letter topic.
    async fn dead_letters(&self, declarer: &mut Declarer<'_>, spec: &Spec) -> Result<(), Fault> {
        let Some(topic) = &spec.dead_letter else {
            return Ok(());
        };
        let stream = self.layout.stream(topic);
        declarer.queue(&stream, dead_letter_stream()).await?;
        declarer.bind_queue(&stream, &self.layout.exchange, topic).await?;
        // What the broker itself gives up comes under the default name, whatever the listener's is.
        let fallback = names::dead_letter_topic(spec.topic(), &spec.group);
        if spec.sharing == Sharing::Group && *fallback != **topic {
            declarer
                .bind_queue(&stream, &self.layout.exchange, &fallback)
                .await?;
        }
        declarer.exchange(MARKS, ExchangeKind::Direct, None).await?;
        declarer.bind_queue(&stream, MARKS, &stream).await
    }

    /// The queue of a listener's group.
    async fn group(&self, declarer: &mut Declarer<'_>, spec: &Spec) -> Result<(), Fault> {
        if spec.sharing == Sharing::Broadcast {
            return Ok(());
        }
        let (topic, group) = (spec.topic(), &spec.group);
        let ordered = spec.order == Order::ByKey;
        let queue = self.layout.queue(topic, group, ordered);
        let fallback = names::dead_letter_topic(topic, group);
        declarer
            .queue(&queue, group_queue(&self.layout.exchange, &fallback, ordered))
            .await?;
        for (exchange, key) in self.bindings(spec) {
            declarer.bind_queue(&queue, exchange, &key).await?;
        }
        Ok(())
    }

    /// What the queue of a listener's group receives by.
    fn bindings(&self, spec: &Spec) -> [(&str, String); 4] {
        let topic = spec.topic();
        let inbox = self.layout.inbox(topic, &spec.group);
        let from_ladder = [Destination::Inbox(&inbox), Destination::Topic(topic)].map(ladder::arrives);
        let [to_inbox, to_topic] = from_ladder.map(|key| (LADDER_EXIT, key));
        [
            (&*self.layout.exchange, topic.to_string()),
            (INBOX, inbox),
            to_inbox,
            to_topic,
        ]
    }

    /// The same, where the listener has no queue of the other kind or leaves it now.
    async fn own_alone(&self, declarer: &mut Declarer<'_>, spec: &Spec) -> Result<(), Fault> {
        if spec.sharing == Sharing::Broadcast {
            self.tell_of_group(declarer, spec).await?;
            return self.own(declarer, spec).await;
        }
        // Before anything is bound: what is refused would fill without a reader, and keep the former version from starting
        // again as well. And once more when it is bound, for what came meanwhile.
        self.other_queue(declarer, spec).await?;
        self.own(declarer, spec).await?;
        if let Some(other) = self.other_queue(declarer, spec).await? {
            for (exchange, key) in self.bindings(spec) {
                declarer.unbind_queue(&other, exchange, &key).await?;
            }
        }
        Ok(())
    }

    /// A group's queue beside its broadcast is another program's, or fills since `broadcast` was switched on: nothing here knows.
    async fn tell_of_group(&self, declarer: &mut Declarer<'_>, spec: &Spec) -> Result<(), Fault> {
        for ordered in [false, true] {
            let queue = self.layout.queue(spec.topic(), &spec.group, ordered);
            if let Some(found) = declarer.look(&queue).await?
                && found.consumer_count() == 0
            {
                tracing::warn!(
                    listener = %spec.listener, %queue, messages = found.message_count(),
                    "this group has a queue without a reader, which goes on filling: if `broadcast` was switched on, delete it \
                     (rabbitmqctl delete_queue); if another program reads it, give this listener another `group`",
                );
            }
        }
        Ok(())
    }

    /// `ordered` was switched: the queue of the other kind, which must be empty and idle.
    async fn other_queue(&self, declarer: &mut Declarer<'_>, spec: &Spec) -> Result<Option<String>, Fault> {
        let (ordered, switched) = match spec.order {
            Order::ByKey => (false, "`ordered` was switched on"),
            Order::None => (true, "`ordered` was switched off"),
        };
        let other = self.layout.queue(spec.topic(), &spec.group, ordered);
        match declarer.look(&other).await? {
            None => Ok(None),
            Some(found) if found.message_count() == 0 && found.consumer_count() == 0 => Ok(Some(other)),
            Some(found) => Err(still_used(switched, &other, &found)),
        }
    }

    /// What no declaration could mend.
    fn impossible(&self, spec: &Spec) -> Vec<Problem> {
        let mut problems = spec.misnamed();
        let inbox = self.layout.inbox(spec.topic(), &spec.group);
        let room = 255 - ladder::KEY_OVERHEAD;
        let is_crowded = problems.is_empty() && inbox.len() > room;
        let mut add = |what: String, help: &str| {
            problems.push(Problem {
                listener: spec.listener.clone(),
                what,
                help: help.into(),
            });
        };
        if is_crowded {
            add(
                format!(
                    "topic and group make a queue name of {} bytes with the exchange's name, and at most {room} fit a \
                     routing key",
                    inbox.len()
                ),
                "shorten the topic or the group",
            );
        }
        if spec.start == Start::Earliest {
            add(
                "`start = earliest` asks for history, and a RabbitMQ queue has none from before it was declared".into(),
                "leave `start` out, or declare the group before the first message",
            );
        }
        if let Some(longest) = spec.max_delay
            && longest > ladder::LONGEST
        {
            add(
                format!(
                    "it may wait {longest:?} before a retry, and the delay ladder carries {:?}",
                    ladder::LONGEST
                ),
                "lower the backoff's cap",
            );
        }
        problems
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn still_used(switched: &str, former: &str, found: &Queue) -> Fault {
    Fault::new(
        ErrorKind::Topology,
        format!(
            "{switched}, and the group's former queue `{former}` still has {} messages and {} consumers",
            found.message_count(),
            found.consumer_count()
        ),
        format!(
            "stop what publishes to the topic until the former version has emptied it and all its instances have \
             stopped, then start this one; or give this one another `group`; or, to give up what is in it, delete it: \
             rabbitmqctl delete_queue '{former}'"
        ),
    )
}

fn needs_the_ladder(specs: &[Spec]) -> bool {
    specs.iter().any(|spec| spec.sharing == Sharing::Group)
}

#[cfg(test)]
mod tests;
