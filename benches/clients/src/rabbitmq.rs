//! Raw loops on lapin.

use std::collections::VecDeque;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, PublisherConfirm};
use postrider::async_trait;

use crate::probe::{Cost, Mark, Order, Probe, again};
use crate::raw::{BESIDE, GROUP, MESSAGE_ID, OUT, PREFETCH, Raw, TOPIC, UNCONFIRMED};

/// Acknowledged together by the tuned loops.
const TOGETHER: u64 = 64;

pub(crate) struct RabbitMq {
    pub(crate) url: String,
}

impl RabbitMq {
    async fn channel(&self) -> (Connection, Channel) {
        let connection = Connection::connect(&self.url, ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    }

    /// From the queue that the SDK has declared.
    async fn consumer(&self, channel: &Channel) -> Consumer {
        channel
            .basic_qos(PREFETCH as u16, BasicQosOptions::default())
            .await
            .unwrap();
        channel
            .basic_consume(
                queue(TOPIC),
                "raw".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap()
    }
}

fn queue(topic: &str) -> ShortString {
    format!("{topic}.{GROUP}").into()
}

async fn send(channel: &Channel, topic: &str, payload: &[u8]) -> PublisherConfirm {
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_timestamp(1)
        .with_message_id(MESSAGE_ID.into());
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    channel
        .basic_publish("postrider".into(), topic.into(), options, payload, properties)
        .await
        .unwrap()
}

async fn confirmed(confirm: PublisherConfirm) {
    assert!(confirm.await.unwrap().is_ack());
}

async fn confirming(channel: &Channel) {
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
}

#[async_trait]
impl Raw for RabbitMq {
    async fn consume(&self, tuned: bool, probe: &Probe) {
        let (connection, channel) = self.channel().await;
        let mut consumer = self.consumer(&channel).await;
        let mut unsettled = 0;
        while let Some(delivery) = consumer.next().await {
            let delivery = delivery.unwrap();
            let last = probe.handle(&delivery.data);
            unsettled += 1;
            if !tuned {
                delivery.ack(BasicAckOptions::default()).await.unwrap();
            } else if last || unsettled == TOGETHER {
                let all = BasicAckOptions { multiple: true };
                channel.basic_ack(delivery.delivery_tag, all).await.unwrap();
                unsettled = 0;
            }
            if last {
                break;
            }
        }
        connection.close(200, "done".into()).await.unwrap();
    }

    async fn forward(&self, tuned: bool, probe: &Probe) {
        let (connection, channel) = self.channel().await;
        confirming(&channel).await;
        let mut consumer = self.consumer(&channel).await;
        let mut under_way = VecDeque::new();
        while let Some(delivery) = consumer.next().await {
            let delivery = delivery.unwrap();
            let last = probe.handle(&delivery.data);
            let confirm = send(&channel, OUT, &again(&delivery.data)).await;
            if tuned {
                // Half of the prefetch is confirmed while the other half comes in.
                under_way.push_back((delivery.delivery_tag, confirm));
                if last || under_way.len() == PREFETCH / 2 {
                    let mut settled = None;
                    let some = if last { under_way.len() } else { TOGETHER as usize };
                    for (tag, confirm) in under_way.drain(..some) {
                        confirmed(confirm).await;
                        settled = Some(tag);
                    }
                    let all = BasicAckOptions { multiple: true };
                    channel.basic_ack(settled.unwrap(), all).await.unwrap();
                }
            } else {
                confirmed(confirm).await;
                delivery.ack(BasicAckOptions::default()).await.unwrap();
            }
            if last {
                break;
            }
        }
        connection.close(200, "done".into()).await.unwrap();
    }

    async fn publish(&self, tuned: bool, order: &Order) -> Cost {
        let (connection, channel) = self.channel().await;
        confirming(&channel).await;
        let begun = Mark::now();
        let mut under_way = VecDeque::new();
        for number in 0..order.count {
            order.wait(number).await;
            under_way.push_back(send(&channel, TOPIC, &order.payload(number)).await);
            if !tuned || under_way.len() == UNCONFIRMED {
                confirmed(under_way.pop_front().unwrap()).await;
            }
        }
        for confirm in under_way {
            confirmed(confirm).await;
        }
        let cost = order.cost(&begun);
        connection.close(200, "done".into()).await.unwrap();
        cost
    }

    async fn empty(&self) {
        let (connection, channel) = self.channel().await;
        for topic in [TOPIC, OUT] {
            let purge = QueuePurgeOptions::default();
            channel.queue_purge(queue(topic), purge).await.unwrap();
        }
        connection.close(200, "done".into()).await.unwrap();
    }

    async fn delete(&self) {
        let (connection, channel) = self.channel().await;
        for topic in [TOPIC, OUT] {
            for group in [GROUP, BESIDE] {
                for name in [format!("{topic}.{group}"), format!("{topic}.{group}.dlq")] {
                    let delete = QueueDeleteOptions::default();
                    channel.queue_delete(name.into(), delete).await.unwrap();
                }
            }
        }
        connection.close(200, "done".into()).await.unwrap();
    }

    async fn about(&self) -> String {
        format!(
            "lapin: a quorum queue that the SDK has declared, read by all; prefetch {PREFETCH}; persistent, mandatory \
             messages; at most {UNCONFIRMED} unconfirmed; the tuned loop acknowledges {TOGETHER} at a time (`multiple`)"
        )
    }
}
