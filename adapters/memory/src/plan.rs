//! Checking and declaring what listeners ask for.

use postrider_contract::{Capabilities, Order, Problem, Sharing, Spec, Start, Topology};

use crate::state::State;

impl State {
    /// Checks everything, and only then declares anything.
    pub(crate) fn plan(
        &mut self,
        all: &[Spec],
        mode: Topology,
        able: &Capabilities,
    ) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        for spec in all {
            self.check(spec, mode, able, &mut |what, help: &str| {
                let (listener, help) = (spec.listener.clone(), help.to_owned());
                problems.push(Problem { listener, what, help });
            });
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        if mode == Topology::Declare {
            for spec in all {
                self.declare(spec);
            }
            self.queues.wake();
        }
        Ok(())
    }

    fn check(&self, spec: &Spec, mode: Topology, able: &Capabilities, say: &mut dyn FnMut(String, &str)) {
        for problem in spec.misnamed() {
            say(problem.what, &problem.help);
        }
        if spec.in_flight == 0 {
            say(
                "it allows no delivery in flight".into(),
                "set in_flight to at least 1",
            );
        }
        if spec.max_delay.is_some_and(|delay| delay > able.max_delay) {
            say(
                "it asks for delays beyond a year".into(),
                "lower the cap of its backoff",
            );
        }
        if spec.start == Start::Earliest && !able.earliest {
            let help = "add ?retain=<messages> to the memory:// URL, or start = new";
            say(
                "it starts at the earliest, but this broker retains no history".into(),
                help,
            );
        }
        if spec.sharing == Sharing::Group {
            self.check_group(spec, mode, say);
        }
    }

    fn check_group(&self, spec: &Spec, mode: Topology, say: &mut dyn FnMut(String, &str)) {
        let (topic, name) = (&**spec.topic(), &*spec.group);
        match self.group(topic, name).and_then(|index| self.queues.get(index)) {
            Some(group) if group.order != spec.order && !group.members.is_empty() => say(
                format!(
                    "group {name:?} on topic {topic:?} is running {}, this listener is {}",
                    word(group.order),
                    word(spec.order)
                ),
                "make both the same, or name another group",
            ),
            None if mode == Topology::Verify => say(
                format!("group {name:?} was never declared on topic {topic:?}"),
                "declare it first, with topology = declare",
            ),
            _ => (),
        }
    }

    fn declare(&mut self, spec: &Spec) {
        let topic = self.topic(spec.topic());
        if let Some(dead) = &spec.dead_letter {
            let dead = self.topic(dead);
            self.topics[dead].keep_dead();
        }
        if spec.sharing == Sharing::Broadcast {
            return;
        }
        if let Some(index) = self.group(spec.topic(), &spec.group) {
            if let Some(group) = self.queues.get_mut(index) {
                group.order = spec.order;
            }
            return;
        }
        let index = self.add_group(topic, spec);
        if spec.start == Start::Earliest {
            for (entry, due) in self.topics[topic].history.clone() {
                self.queues.enqueue(index, entry, due);
            }
        }
    }
}

fn word(order: Order) -> &'static str {
    match order {
        Order::None => "without order",
        Order::ByKey => "ordered",
    }
}
