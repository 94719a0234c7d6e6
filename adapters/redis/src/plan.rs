//! Checks what the subscriptions need, and makes it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use postrider_contract::{Error, Order, Problem, Sharing, Spec, Start, Topology};
use redis::Value;

use crate::broker::Redis;
use crate::failure::{checked, from_server};
use crate::fields::bytes;
use crate::keys;
use crate::link::COMMAND;
use crate::scripts::Name;
use crate::status::groups_of;
use crate::topics::is_called_dead_letters;

/// A key that a listener needs.
struct Need {
    listener: Arc<str>,
    /// In words.
    what: String,
    key: String,
    /// A stream with this group, which begins there.
    group: Option<(Arc<str>, Start)>,
}

impl Need {
    fn problem(&self, what: String, help: impl Into<String>) -> Problem {
        Problem {
            listener: Arc::clone(&self.listener),
            what,
            help: help.into(),
        }
    }
}

impl Redis {
    pub(crate) async fn check_and_declare(&self, all: &[Spec], mode: Topology) -> Result<(), Vec<Problem>> {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
        let (mut problems, mut all_right) = (Vec::new(), Vec::with_capacity(all.len()));
        for spec in all {
            let wrong = spec.misnamed();
            if wrong.is_empty() {
                all_right.push(spec.clone());
            }
            problems.extend(wrong);
        }
        // The others are checked all the same, so that everything is told at once.
        let all = all_right.as_slice();
        let unreachable = |error: Error| -> Vec<Problem> {
            let problem = |spec: &Spec| Problem {
                listener: Arc::clone(&spec.listener),
                what: format!("its topics cannot be checked: {error}"),
                help: "see that Redis can be reached and the user may do this".to_owned(),
            };
            all.iter().map(problem).collect()
        };
        self.find_dead_letter_topics(all, mode)
            .await
            .map_err(unreachable)?;
        for spec in all {
            problems.extend(self.asks_too_much(spec));
        }
        let needs: Vec<Need> = all.iter().flat_map(|spec| self.needs(spec)).collect();
        if mode == Topology::Verify {
            problems.extend(self.unmarked(all).await.map_err(unreachable)?);
        }
        let types = self.types(&needs).await.map_err(unreachable)?;
        for (need, found) in needs.iter().zip(&types) {
            if !matches!(found.as_str(), "stream" | "none") {
                problems.push(need.problem(
                    format!(
                        "{} needs the key `{}` as a stream, which holds a {found}",
                        need.what, need.key
                    ),
                    "rename or delete that key, or use another database",
                ));
            }
        }
        let right: Vec<(&Need, bool)> = needs
            .iter()
            .zip(&types)
            .filter(|(_, found)| matches!(found.as_str(), "stream" | "none"))
            .map(|(need, found)| (need, found == "stream"))
            .collect();
        let more = match mode {
            Topology::Declare => self.declare(&right).await,
            Topology::Verify => self.verify(&right).await,
        };
        problems.extend(more.map_err(unreachable)?);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    /// A topic of dead letters that is not called `.dlq` is marked on the server, so that every process knows it.
    async fn find_dead_letter_topics(&self, all: &[Spec], mode: Topology) -> Result<(), Error> {
        let named = all.iter().filter_map(|spec| spec.dead_letter.as_ref());
        let mut marks: Vec<&Arc<str>> = Vec::new();
        for topic in named {
            if !is_called_dead_letters(topic) && mode == Topology::Declare {
                marks.push(topic);
            }
            self.topics.mark_dead_letters(topic);
        }
        // Only those that are missing: a server at its maxmemory refuses to set one that it has.
        let there = self.marked(&marks).await?;
        let mut set = redis::pipe();
        for (topic, _) in marks.iter().zip(there).filter(|(_, there)| !there) {
            set.cmd("SET").arg(keys::dead_letters(topic)).arg(1);
        }
        let answers = self.link.pipeline(&set, COMMAND).await;
        for answer in answers.map_err(|failure| failure.error)? {
            checked(answer)?;
        }
        let asked: Vec<&Arc<str>> = all
            .iter()
            .flat_map(|spec| std::iter::once(spec.topic()).chain(&spec.publishes))
            .collect();
        let marked = self.marked(&asked).await?;
        for (topic, _) in asked.into_iter().zip(marked).filter(|(_, marked)| *marked) {
            self.topics.mark_dead_letters(topic);
        }
        Ok(())
    }

    /// Which of these topics are marked as holding dead letters.
    async fn marked(&self, topics: &[&Arc<str>]) -> Result<Vec<bool>, Error> {
        let mut ask = redis::pipe();
        for topic in topics {
            ask.cmd("EXISTS").arg(keys::dead_letters(topic));
        }
        let answers = self.link.pipeline(&ask, COMMAND).await;
        let answers = answers.map_err(|failure| failure.error)?.into_iter();
        answers
            .map(|answer| Ok(checked(answer)? == Value::Int(1)))
            .collect()
    }

    /// Topics of dead letters whose mark is missing: other processes would trim them, and use a channel on Pub/Sub.
    async fn unmarked(&self, all: &[Spec]) -> Result<Vec<Problem>, Error> {
        let named: Vec<(&Spec, &Arc<str>)> = all
            .iter()
            .filter_map(|spec| Some((spec, spec.dead_letter.as_ref()?)))
            .filter(|(_, topic)| !is_called_dead_letters(topic))
            .collect();
        let topics: Vec<&Arc<str>> = named.iter().map(|(_, topic)| *topic).collect();
        let marked = self.marked(&topics).await?;
        let mut problems = Vec::new();
        for ((spec, topic), _) in named.into_iter().zip(marked).filter(|(_, marked)| !marked) {
            let mark = keys::dead_letters(topic);
            problems.push(Problem {
                listener: Arc::clone(&spec.listener),
                what: format!(
                    "nothing tells other processes that `{topic}` holds dead letters (key `{mark}`): they would trim it"
                ),
                help: format!("SET {mark} 1, or run once with topology = declare"),
            });
        }
        Ok(problems)
    }

    /// What a channel cannot give.
    fn asks_too_much(&self, spec: &Spec) -> Vec<Problem> {
        if self.topics.is_stream(spec.topic()) {
            return Vec::new();
        }
        let problem = |what: &str, help: &str| Problem {
            listener: Arc::clone(&spec.listener),
            what: what.to_owned(),
            help: help.to_owned(),
        };
        let mut problems = Vec::new();
        if spec.order == Order::ByKey {
            problems.push(problem(
                "Redis Pub/Sub keeps no order by key",
                "remove `ordered`, or use redis:// (Streams)",
            ));
        }
        if spec.start == Start::Earliest {
            problems.push(problem(
                "Redis Pub/Sub keeps no history to start from",
                "remove `start = earliest`, or use redis:// (Streams)",
            ));
        }
        problems
    }

    fn needs(&self, spec: &Spec) -> Vec<Need> {
        let need = |what: String, key: String, group: Option<(Arc<str>, Start)>| Need {
            listener: Arc::clone(&spec.listener),
            what,
            key,
            group,
        };
        let topic = spec.topic();
        let shared = spec.sharing == Sharing::Group;
        let mut needs = Vec::new();
        if self.topics.is_stream(topic) {
            let group = shared.then(|| (Arc::clone(&spec.group), spec.start));
            needs.push(need(format!("topic `{topic}`"), keys::topic(topic), group));
        }
        if shared {
            needs.push(need(
                format!("the inbox of group `{}` on `{topic}`", spec.group),
                keys::inbox(topic, &spec.group),
                // All of it: a replay may have come before the group.
                Some((Arc::clone(&spec.group), Start::Earliest)),
            ));
        }
        if let Some(dead) = &spec.dead_letter {
            needs.push(need(
                format!("dead-letter topic `{dead}`"),
                keys::topic(dead),
                None,
            ));
        }
        for topic in &spec.publishes {
            if self.topics.is_stream(topic) {
                needs.push(need(format!("topic `{topic}`"), keys::topic(topic), None));
            }
        }
        needs
    }

    async fn types(&self, needs: &[Need]) -> Result<Vec<String>, Error> {
        let mut ask = redis::pipe();
        for need in needs {
            ask.cmd("TYPE").arg(&need.key);
        }
        let answers = self
            .link
            .pipeline(&ask, COMMAND)
            .await
            .map_err(|failure| failure.error)?;
        let text = |answer| match answer {
            Value::ServerError(error) => Err(from_server(&error)),
            answer => Ok(
                bytes(answer).map_or_else(String::new, |text| String::from_utf8_lossy(&text).into_owned())
            ),
        };
        answers.into_iter().map(text).collect()
    }

    async fn declare(&self, needs: &[(&Need, bool)]) -> Result<Vec<Problem>, Error> {
        let mut problems = Vec::new();
        for (need, exists) in needs {
            let command = match &need.group {
                // Not tried: a server at its maxmemory refuses to make a group that it has.
                Some((group, _))
                    if *exists
                        && groups_of(&self.link, &need.key)
                            .await?
                            .iter()
                            .any(|name| **name == **group) =>
                {
                    continue;
                }
                Some((group, start)) => {
                    let start = if *start == Start::Earliest { "0" } else { "$" };
                    let mut create = redis::cmd("XGROUP");
                    create
                        .arg("CREATE")
                        .arg(&need.key)
                        .arg(&**group)
                        .arg(start)
                        .arg("MKSTREAM");
                    create
                }
                None if *exists => continue,
                None => self.link.script(Name::Declare, &[&need.key]),
            };
            let mut one = redis::pipe();
            one.add_command(command.clone());
            // As a pipeline, so that the code of an error reply can be seen; the script by itself, so that it is loaded.
            let answer = if need.group.is_some() {
                let answers = self
                    .link
                    .pipeline(&one, COMMAND)
                    .await
                    .map_err(|failure| failure.error)?;
                match answers.into_iter().next() {
                    Some(Value::ServerError(error)) if error.code() != "BUSYGROUP" => {
                        Err(from_server(&error))
                    }
                    _ => Ok(()),
                }
            } else {
                match self.link.run(&command, COMMAND).await {
                    Err(failure) if failure.sent => return Err(failure.error),
                    Err(failure) => Err(failure.error),
                    Ok(_) => Ok(()),
                }
            };
            if let Err(error) = answer {
                problems.push(need.problem(
                    format!("{} cannot be made: {error}", need.what),
                    "make it, or let the user make it",
                ));
            }
        }
        Ok(problems)
    }

    async fn verify(&self, needs: &[(&Need, bool)]) -> Result<Vec<Problem>, Error> {
        let mut problems = Vec::new();
        let mut known: HashMap<&str, Vec<String>> = HashMap::new();
        for (need, exists) in needs {
            if !exists {
                problems.push(need.problem(
                    format!("{} is not there (stream `{}`)", need.what, need.key),
                    "make it, or run once with topology = declare",
                ));
                continue;
            }
            let Some((group, _)) = &need.group else { continue };
            if !known.contains_key(need.key.as_str()) {
                known.insert(&need.key, groups_of(&self.link, &need.key).await?);
            }
            if !known[need.key.as_str()].iter().any(|name| **name == **group) {
                problems.push(need.problem(
                    format!(
                        "{} has no consumer group `{group}` (stream `{}`)",
                        need.what, need.key
                    ),
                    format!(
                        "XGROUP CREATE {} {group} $, or run once with topology = declare",
                        need.key
                    ),
                ));
            }
        }
        Ok(problems)
    }
}
