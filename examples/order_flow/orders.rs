//! The orders to place, and what should become of each.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use postrider::{Error, prelude::*};

use crate::catalogue::sells;
use crate::messages::OrderCreated;
use crate::payment::{DECLINED, failures};
use crate::run::{RUN_ID, RunId};

/// How many orders are on their way to the broker at once.
const IN_FLIGHT: usize = 512;
/// How often an order is sent before the broker is given up.
const ATTEMPTS: u32 = 10;

/// One line of `orders.ndjson`.
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) text: &'static str,
    /// The order, where the line is one.
    pub(crate) order: Option<OrderCreated>,
    pub(crate) fate: Fate,
}

/// What should become of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Shipped,
    /// Not paid: the stock is released.
    Compensated,
    /// Given up, for this reason.
    DeadLettered(&'static str),
}

impl Line {
    fn new(number: usize, text: &'static str) -> Self {
        let order: Option<OrderCreated> = serde_json::from_str(text).ok();
        let fate = match &order {
            None => Fate::DeadLettered("decode"),
            Some(order) if !sells(&order.article) => Fate::DeadLettered("permanent"),
            Some(order) if order.card.ends_with(DECLINED) => Fate::Compensated,
            Some(_) => Fate::Shipped,
        };
        Self {
            number,
            text,
            order,
            fate,
        }
    }

    /// The partition key: the order's number, or the line's where there is none to be read.
    pub(crate) fn key(&self) -> String {
        match &self.order {
            Some(order) => order.order_id.to_string(),
            None => format!("line-{}", self.number),
        }
    }

    /// How many requests to the payment gateway fail.
    pub(crate) fn failures(&self) -> u32 {
        self.order.as_ref().map_or(0, |order| failures(&order.card))
    }
}

/// Every line of the file, which is compiled in so that the program runs from anywhere.
pub(crate) fn read() -> Arc<[Line]> {
    let lines = include_str!("../data/orders.ndjson").lines();
    lines
        .zip(1..)
        .map(|(text, number)| Line::new(number, text))
        .collect()
}

/// Publishes every line as it is, also what is no valid order: many at once, each confirmed.
pub(crate) async fn place(publisher: Publisher, run: RunId, lines: Arc<[Line]>) -> Result<(), Error> {
    stream::iter(0..lines.len())
        .map(|index| place_one(&publisher, &run, &lines[index]))
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await
}

async fn place_one(publisher: &Publisher, run: &RunId, line: &Line) -> Result<(), Error> {
    let mut attempt = 1;
    loop {
        let draft = publisher
            .topic(OrderCreated::TOPIC)
            .key(line.key())
            .header("content-type", "application/json")
            .header(RUN_ID, run.as_str())
            // The same every time: a broker or a reader can tell that it was sent again.
            .id(format!("{}-{}", run.as_str(), line.number));
        match draft.send_bytes(line.text).await {
            Err(error) if error.is_retryable() && attempt < ATTEMPTS => {
                tracing::warn!(line = line.number, "not placed, will be tried again: {error}");
                tokio::time::sleep(Duration::from_millis(200) * attempt).await;
                attempt += 1;
            }
            done => return done,
        }
    }
}
