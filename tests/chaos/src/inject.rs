//! Carries a fault out, from its begin to its end.

use std::time::Duration;

use fastrand::Rng;
use lapin::options::{QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use postrider::Message as _;
use postrider::contract::names;
use tokio::time::sleep;

use crate::Result;
use crate::broker::OwnBroker;
use crate::fault::Fault;
use crate::fleet::{DRAIN_LIMIT, Fleet};
use crate::inspect::topics;
use crate::process::last_lines;
use crate::proxy::{Proxy, Traffic, Way};
use crate::system::System;
use crate::work::{GROUP, Work};

/// What can be broken.
pub(crate) struct Scene<'a> {
    pub(crate) system: System,
    pub(crate) broker: &'a OwnBroker,
    pub(crate) proxy: Option<&'a Proxy>,
    pub(crate) fleet: &'a mut Fleet,
    pub(crate) random: &'a mut Rng,
}

impl Scene<'_> {
    /// Breaks something, and mends it. Tells what exactly, for the line of results.
    pub(crate) async fn inject(&mut self, fault: Fault) -> Result<String> {
        let told = self.carry_out(fault).await?;
        if let Some(proxy) = self.proxy {
            // Of each consumer one at least, and the publisher's.
            proxy.meets(self.fleet.len() + 1).await?;
        }
        Ok(told)
    }

    async fn carry_out(&mut self, fault: Fault) -> Result<String> {
        let beyond = self.system.beyond_limits();
        match fault {
            Fault::BrokerKill => {
                let down = self.between(200, 3_000);
                self.broker.verb("kill").await?;
                sleep(down).await;
                self.broker.up().await?;
                Ok(format!("down for {} ms", down.as_millis()))
            }
            Fault::BrokerPause => {
                self.broker.verb("pause").await?;
                sleep(beyond).await;
                self.broker.verb("resume").await?;
                Ok(format!("for {beyond:?}"))
            }
            Fault::ConsumerKill => self.kill_consumers().await,
            Fault::ConsumerPause => {
                let place = self.random.usize(..self.fleet.len());
                self.fleet.instance(place).signal("STOP").await?;
                sleep(beyond).await;
                self.fleet.instance(place).signal("CONT").await?;
                Ok(format!("one of {} for {beyond:?}", self.fleet.len()))
            }
            Fault::RollingRestart => self.restart_consumers().await,
            Fault::Partition => {
                let way = self.way();
                self.traffic(Traffic::Waits(way))?;
                sleep(beyond).await;
                self.traffic(Traffic::Passes)?;
                Ok(format!("{way:?} for {beyond:?}"))
            }
            Fault::Blackhole => {
                let way = self.way();
                self.traffic(Traffic::Vanishes(way))?;
                sleep(beyond).await;
                self.traffic(Traffic::Passes)?;
                Ok(format!("{way:?} for {beyond:?}"))
            }
            Fault::Reset => {
                let times = self.random.u32(1..=4);
                for _ in 0..times {
                    self.proxy.ok_or("no proxy")?.reset();
                    sleep(self.between(50, 800)).await;
                }
                Ok(format!("{times} times"))
            }
            Fault::DeadLettersRefused => {
                self.refuse_dead_letters().await?;
                let pause = self.between(4_000, 7_000);
                sleep(pause).await;
                self.take_dead_letters().await?;
                Ok(format!("for {} ms", pause.as_millis()))
            }
            Fault::Deleted => self.delete().await,
        }
    }

    fn between(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.random.u64(from..to))
    }

    fn way(&mut self) -> Way {
        if self.random.bool() {
            Way::ToBroker
        } else {
            Way::ToClients
        }
    }

    fn traffic(&self, traffic: Traffic) -> Result<()> {
        self.proxy.ok_or("no proxy")?.set(traffic);
        Ok(())
    }

    /// Several times, since a kill does not always meet a handler.
    async fn kill_consumers(&mut self) -> Result<String> {
        let all = self.fleet.len();
        let victims = if self.random.bool() { all } else { all - 1 };
        let times = 3;
        for time in 1..=times {
            for place in 0..victims {
                self.fleet.instance(place).kill().await?;
            }
            sleep(self.between(50, 500)).await;
            for place in 0..victims {
                self.fleet.replace(place)?;
            }
            if time < times {
                self.fleet.ready().await?;
                sleep(self.between(300, 1_000)).await;
            }
        }
        Ok(format!("{victims} of {all}, {times} times"))
    }

    async fn restart_consumers(&mut self) -> Result<String> {
        let times = 2;
        for _ in 0..times {
            for place in 0..self.fleet.len() {
                let mut former = self.fleet.replace(place)?;
                former.signal("TERM").await?;
                match former.end_within(DRAIN_LIMIT).await? {
                    Some(status) if status.success() => {}
                    Some(status) => {
                        let log = last_lines(&former.log(), 3);
                        return Err(format!("a consumer that is replaced ended with {status}: {log}").into());
                    }
                    None => return Err(format!("a consumer did not drain within {DRAIN_LIMIT:?}").into()),
                }
                sleep(self.between(0, 700)).await;
            }
        }
        Ok(format!("each {times} times"))
    }

    async fn refuse_dead_letters(&self) -> Result<()> {
        for source in topics(self.system) {
            let topic = names::dead_letter_topic(source, GROUP);
            match self.system {
                // Every record is older than that when it arrives.
                System::Kafka => {
                    self.alter(&topic, "--add-config", "message.timestamp.before.max.ms=0")
                        .await?;
                }
                System::Rabbitmq => self.refuse_with_a_full_queue(&topic).await?,
                // A string takes no entries.
                System::Redis | System::RedisPubsub => {
                    let key = redis_key(source);
                    let aside = format!("{key}:aside");
                    let script = "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[2]) end \
                                  redis.call('SET', KEYS[1], 'not a stream')";
                    self.redis(&["EVAL", script, "2", &key, &aside]).await?;
                }
            }
        }
        Ok(())
    }

    async fn take_dead_letters(&self) -> Result<()> {
        for source in topics(self.system) {
            let topic = names::dead_letter_topic(source, GROUP);
            match self.system {
                System::Kafka => {
                    self.alter(&topic, "--delete-config", "message.timestamp.before.max.ms")
                        .await?;
                }
                System::Rabbitmq => {
                    let connection = self.amqp().await?;
                    let channel = connection.create_channel().await?;
                    bind(&channel, &topic, &topic).await?;
                    channel
                        .queue_delete(refuser(&topic).into(), QueueDeleteOptions::default())
                        .await?;
                    connection.close(200, "done".into()).await?;
                }
                System::Redis | System::RedisPubsub => {
                    let key = redis_key(source);
                    let aside = format!("{key}:aside");
                    let script = "redis.call('DEL', KEYS[1]) \
                                  if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[1]) end";
                    self.redis(&["EVAL", script, "2", &key, &aside]).await?;
                }
            }
        }
        Ok(())
    }

    /// In the place of the stream comes a queue that is full and rejects.
    async fn refuse_with_a_full_queue(&self, topic: &str) -> Result<()> {
        let connection = self.amqp().await?;
        let channel = connection.create_channel().await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(0));
        arguments.insert(
            "x-overflow".into(),
            AMQPValue::LongString("reject-publish".into()),
        );
        let queue = refuser(topic);
        channel
            .queue_declare(queue.as_str().into(), QueueDeclareOptions::default(), arguments)
            .await?;
        bind(&channel, &queue, topic).await?;
        channel
            .queue_unbind(
                topic.into(),
                "postrider".into(),
                topic.into(),
                FieldTable::default(),
            )
            .await?;
        connection.close(200, "done".into()).await?;
        Ok(())
    }

    async fn delete(&self) -> Result<String> {
        let topic = Work::TOPIC;
        match self.system {
            System::Kafka => {
                self.broker.cli(&["topics", "--delete", "--topic", topic]).await?;
                Ok(format!("topic {topic}"))
            }
            System::Rabbitmq => {
                let queue = format!("{topic}.{GROUP}");
                self.broker
                    .cli(&["delete_queue", &queue, "--vhost", "postrider"])
                    .await?;
                Ok(format!("queue {queue}"))
            }
            System::Redis => self.delete_key(topic).await,
            System::RedisPubsub => {
                let inbox = format!("{{{topic}}}.{GROUP}.inbox");
                self.delete_key(&inbox).await
            }
        }
    }

    async fn alter(&self, topic: &str, how: &str, what: &str) -> Result<()> {
        let arguments = [
            "configs",
            "--alter",
            "--entity-type",
            "topics",
            "--entity-name",
            topic,
            how,
            what,
        ];
        self.broker.cli(&arguments).await.map(drop)
    }

    async fn redis(&self, command: &[&str]) -> Result<()> {
        let answer = self.broker.cli(command).await?;
        if answer.starts_with("ERR") || answer.starts_with("WRONGTYPE") {
            return Err(format!("redis-cli {}: {answer}", command.join(" ")).into());
        }
        Ok(())
    }

    async fn delete_key(&self, key: &str) -> Result<String> {
        let deleted = self.broker.cli(&["DEL", key]).await?;
        if deleted.trim() != "1" {
            return Err(format!("there is no {key} to delete: {deleted}").into());
        }
        Ok(format!("stream {key}"))
    }

    async fn amqp(&self) -> Result<Connection> {
        let url = format!("amqp://guest:guest@127.0.0.1:{}/postrider", self.broker.port());
        Ok(Connection::connect(&url, ConnectionProperties::default()).await?)
    }
}

/// The key of the stream that holds the dead letters of a topic.
fn redis_key(topic: &str) -> String {
    format!("{{{topic}}}.{GROUP}.dlq")
}

/// Brings what is published to a topic into a queue.
async fn bind(channel: &Channel, queue: &str, topic: &str) -> Result<()> {
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    channel
        .queue_bind(queue.into(), "postrider".into(), topic.into(), options, arguments)
        .await?;
    Ok(())
}

fn refuser(topic: &str) -> String {
    format!("chaos.refuser.{topic}")
}
