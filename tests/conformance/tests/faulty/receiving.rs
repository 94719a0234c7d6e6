//! Wrong ways of receiving.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider_conformance::async_trait;
use postrider_contract::{
    Delivery, Error, Event, Origin, Receiver, Settlement, Settler, Token, Verdict, names, return_path,
};
use tokio::time::{Instant, sleep};

use super::{Fault, Held};

/// Tokens that name a place and not a delivery.
#[derive(Clone, Default)]
pub(super) struct Slots(Arc<Mutex<HashMap<u64, Token>>>);

impl Slots {
    fn rename(&self, token: Token) -> Token {
        // The low half is where the embedded broker keeps it; the half that tells its users apart is lost.
        let seq = token.seq & u64::from(u32::MAX);
        self.0.lock().unwrap().insert(seq, token);
        Token {
            seq,
            epoch: 0,
            ..token
        }
    }

    pub(super) fn real(&self, token: Token) -> Token {
        self.0.lock().unwrap().get(&token.seq).copied().unwrap_or(token)
    }
}

pub(super) struct FaultyReceiver {
    inner: Box<dyn Receiver>,
    settler: Arc<dyn Settler>,
    fault: Fault,
    held: Held,
    slots: Slots,
    hoard: Vec<Delivery>,
    last: Instant,
}

impl FaultyReceiver {
    pub(super) fn new(
        inner: Box<dyn Receiver>,
        settler: Arc<dyn Settler>,
        fault: Fault,
        held: Held,
        slots: Slots,
    ) -> Self {
        Self {
            inner,
            settler,
            fault,
            held,
            slots,
            hoard: Vec::new(),
            last: Instant::now(),
        }
    }

    fn change(&mut self, delivery: &mut Delivery) {
        let real = delivery.token;
        match self.fault {
            Fault::CountsNothing => delivery.redeliveries = Some(0),
            Fault::TrustsHeaders if delivery.message.headers.get(names::ATTEMPT).is_some() => {
                delivery.origin = return_path(&delivery.message);
            }
            Fault::ForgetsReplays => {
                if let Origin::ReturnPath { replays, .. } = &mut delivery.origin {
                    *replays = 1.min(*replays);
                }
            }
            Fault::NamesSlots => delivery.token = self.slots.rename(delivery.token),
            Fault::GivesHeldAway => {
                let settler = self.settler.clone();
                tokio::spawn(async move {
                    sleep(Duration::from_secs(1)).await;
                    let verdict = Verdict::Release;
                    settler
                        .settle(&mut vec![Settlement { token: real, verdict }], &mut Vec::new())
                        .await;
                });
            }
            _ => (),
        }
        self.held.lock().unwrap().push(delivery.token);
    }
}

#[async_trait]
impl Receiver for FaultyReceiver {
    async fn next(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<Event, Error> {
        let mut new = Vec::new();
        let event = match self.fault {
            Fault::Hoards if max > 0 => {
                if self.hoard.is_empty() {
                    let event = self.inner.next(1000, &mut self.hoard).await?;
                    if !matches!(event, Event::Deliveries) {
                        return Ok(event);
                    }
                }
                new.extend(self.hoard.drain(..max.min(self.hoard.len())));
                Event::Deliveries
            }
            Fault::GivesTooMany => self.inner.next(max + 1, &mut new).await?,
            Fault::CancelLoses => {
                let event = self.inner.next(max, &mut new).await?;
                sleep(Duration::from_millis(2)).await;
                event
            }
            Fault::Sleepy if self.last.elapsed() > Duration::from_secs(1) => {
                let event = self.inner.next(max, &mut new).await?;
                sleep(Duration::from_secs(4)).await;
                event
            }
            _ => self.inner.next(max, &mut new).await?,
        };
        if self.fault == Fault::Unordered {
            new.reverse();
        }
        self.last = Instant::now();
        for delivery in &mut new {
            self.change(delivery);
        }
        into.extend(new);
        Ok(event)
    }

    async fn pause(&mut self, paused: bool) {
        if self.fault != Fault::IgnoresPause {
            self.inner.pause(paused).await;
        }
    }
}
