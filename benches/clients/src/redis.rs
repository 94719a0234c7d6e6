//! Raw loops on redis, on a stream.

use std::collections::VecDeque;

use postrider::async_trait;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;
use redis::{Cmd, Pipeline, Value, cmd};
use tokio::task::JoinHandle;

use crate::probe::{Cost, Mark, Order, Probe, again};
use crate::raw::{GROUP, MESSAGE_ID, OUT, PREFETCH, Raw, TOPIC, UNCONFIRMED};

/// Sent together by the tuned loops.
const TOGETHER: usize = 250;

pub(crate) struct Redis {
    pub(crate) url: String,
}

impl Redis {
    async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(&*self.url).unwrap();
        // No limit of time: a read may wait.
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .unwrap()
    }
}

fn read() -> Cmd {
    let mut read = cmd("XREADGROUP");
    read.arg("GROUP").arg(GROUP).arg("raw").arg("COUNT").arg(PREFETCH);
    read.arg("BLOCK").arg(1000).arg("STREAMS").arg(TOPIC).arg(">");
    read
}

fn acknowledge() -> Cmd {
    let mut ack = cmd("XACK");
    ack.arg(TOPIC).arg(GROUP);
    ack
}

fn add(to: &str, payload: &[u8]) -> Cmd {
    let mut add = cmd("XADD");
    add.arg(to).arg("*").arg("payload").arg(payload);
    add.arg("content-type").arg("application/json");
    add.arg("message-id").arg(MESSAGE_ID).arg("timestamp").arg(1);
    add
}

/// Ids and payloads of an answer, without a map for each entry.
fn entries(answer: Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Value::Array(mut streams) = answer else {
        return Vec::new();
    };
    let Some(Value::Array(mut stream)) = streams.pop() else {
        return Vec::new();
    };
    let Some(Value::Array(found)) = stream.pop() else {
        return Vec::new();
    };
    let entry = |entry| {
        let Value::Array(parts) = entry else { return None };
        let mut parts = parts.into_iter();
        let (Some(Value::BulkString(id)), Some(Value::Array(fields))) = (parts.next(), parts.next()) else {
            return None;
        };
        let mut fields = fields.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            if let (Value::BulkString(name), Value::BulkString(value)) = (name, value)
                && name == b"payload"
            {
                return Some((id, value));
            }
        }
        None
    };
    found.into_iter().filter_map(entry).collect()
}

/// Sends without waiting for the answer.
fn spawn_ack(connection: &MultiplexedConnection, ack: Cmd) -> JoinHandle<()> {
    let mut connection = connection.clone();
    tokio::spawn(async move { ack.exec_async(&mut connection).await.unwrap() })
}

fn spawn_adds(connection: &MultiplexedConnection, adds: Pipeline) -> JoinHandle<()> {
    let mut connection = connection.clone();
    tokio::spawn(async move { drop(adds.query_async::<Vec<Value>>(&mut connection).await.unwrap()) })
}

impl Redis {
    async fn consume_tuned(&self, probe: &Probe, forward: bool) {
        // A read that waits holds up what is sent after it on the same connection.
        let (mut reading, writing) = (self.connection().await, self.connection().await);
        let mut settling: Option<JoinHandle<()>> = None;
        let mut last = false;
        while !last {
            let mut ack = acknowledge();
            let mut adds = Pipeline::with_capacity(PREFETCH);
            let found = entries(read().query_async(&mut reading).await.unwrap());
            if found.is_empty() {
                continue;
            }
            for (id, payload) in &found {
                last = probe.handle(payload);
                ack.arg(id);
                if forward {
                    adds.add_command(add(OUT, &again(payload)));
                }
            }
            if let Some(before) = settling.take() {
                before.await.unwrap();
            }
            if forward {
                let mut writing = writing.clone();
                settling = Some(tokio::spawn(async move {
                    drop(adds.query_async::<Vec<Value>>(&mut writing).await.unwrap());
                    ack.exec_async(&mut writing).await.unwrap();
                }));
            } else {
                settling = Some(spawn_ack(&writing, ack));
            }
        }
        settling.unwrap().await.unwrap();
    }

    async fn consume_naive(&self, probe: &Probe, forward: bool) {
        let mut connection = self.connection().await;
        let mut last = false;
        while !last {
            let reply: Option<StreamReadReply> = read().query_async(&mut connection).await.unwrap();
            for entry in reply.iter().flat_map(|reply| &reply.keys[0].ids) {
                let payload: Vec<u8> = entry.get("payload").unwrap();
                last = probe.handle(&payload);
                if forward {
                    add(OUT, &again(&payload))
                        .exec_async(&mut connection)
                        .await
                        .unwrap();
                }
                let mut ack = acknowledge();
                ack.arg(&entry.id);
                ack.exec_async(&mut connection).await.unwrap();
            }
        }
    }
}

#[async_trait]
impl Raw for Redis {
    async fn consume(&self, tuned: bool, probe: &Probe) {
        if tuned {
            self.consume_tuned(probe, false).await;
        } else {
            self.consume_naive(probe, false).await;
        }
    }

    async fn forward(&self, tuned: bool, probe: &Probe) {
        if tuned {
            self.consume_tuned(probe, true).await;
        } else {
            self.consume_naive(probe, true).await;
        }
    }

    async fn publish(&self, tuned: bool, order: &Order) -> Cost {
        let mut connection = self.connection().await;
        let begun = Mark::now();
        if tuned {
            let mut under_way = VecDeque::new();
            let mut adds = Pipeline::with_capacity(TOGETHER);
            for number in 0..order.count {
                if !order.is_due(number) {
                    if !adds.is_empty() {
                        under_way.push_back(spawn_adds(&connection, std::mem::take(&mut adds)));
                    }
                    order.wait(number).await;
                }
                adds.add_command(add(TOPIC, &order.payload(number)));
                if adds.len() == TOGETHER || number + 1 == order.count {
                    let full = std::mem::replace(&mut adds, Pipeline::with_capacity(TOGETHER));
                    under_way.push_back(spawn_adds(&connection, full));
                }
                if under_way.len() == UNCONFIRMED / TOGETHER {
                    under_way.pop_front().unwrap().await.unwrap();
                }
            }
            for sent in under_way {
                sent.await.unwrap();
            }
        } else {
            for number in 0..order.count {
                add(TOPIC, &order.payload(number))
                    .exec_async(&mut connection)
                    .await
                    .unwrap();
            }
        }
        order.cost(&begun)
    }

    async fn empty(&self) {
        let mut connection = self.connection().await;
        for topic in [TOPIC, OUT] {
            let mut trim = cmd("XTRIM");
            trim.arg(topic).arg("MAXLEN").arg(0);
            trim.exec_async(&mut connection).await.unwrap();
            // What was added while nobody read counts as read.
            let mut set = cmd("XGROUP");
            set.arg("SETID").arg(topic).arg(GROUP).arg("$");
            set.exec_async(&mut connection).await.unwrap();
        }
    }

    async fn delete(&self) {
        let mut connection = self.connection().await;
        let ours: Vec<String> = cmd("KEYS")
            .arg("*bench.*")
            .query_async(&mut connection)
            .await
            .unwrap();
        cmd("DEL").arg(ours).exec_async(&mut connection).await.unwrap();
    }

    async fn about(&self) -> String {
        let mut connection = self.connection().await;
        let mut told = Vec::new();
        for name in ["appendonly", "appendfsync"] {
            let (name, value): (String, String) = cmd("CONFIG")
                .arg("GET")
                .arg(name)
                .query_async(&mut connection)
                .await
                .unwrap();
            told.push(format!("`{name} {value}`"));
        }
        format!(
            "redis: a stream with one group, {}; reads of {PREFETCH}; at most {UNCONFIRMED} unconfirmed; the tuned loop \
             acknowledges a read with one `XACK` while the next comes in, and publishes in pipelines of {TOGETHER}",
            told.join(", ")
        )
    }
}
