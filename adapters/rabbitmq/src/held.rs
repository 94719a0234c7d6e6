//! What an ordered subscription has delivered and not settled.
//!
//! Given back to the broker, a delivery would come again behind what the client library has fetched already. So the adapter
//! keeps it and brings it again itself, before anything that follows. Only the single active consumer receives from the
//! queue, so no other instance could have taken it meanwhile; when the channel ends, the broker gives everything unsettled
//! to the next one in its order.

use std::collections::BTreeMap;

use postrider_contract::{Delivery, Token};

/// Delivery tags stay below this; above it a token counts how often it was brought again.
const TAG_BITS: u32 = 40;

/// The delivery tag that a token stands for.
pub(crate) fn tag(token: Token) -> u64 {
    token.seq & ((1 << TAG_BITS) - 1)
}

/// Deliveries by their tags.
#[derive(Debug, Default)]
pub(crate) struct Held {
    out: BTreeMap<u64, Delivery>,
    again: BTreeMap<u64, Delivery>,
}

impl Held {
    /// Whether nobody has any of them in hand.
    pub(crate) fn none_is_out(&self) -> bool {
        self.out.is_empty()
    }

    /// It was handed to the runtime.
    pub(crate) fn add(&mut self, delivery: &Delivery) {
        self.out.insert(tag(delivery.token), delivery.clone());
    }

    /// Whether this very delivery is out.
    pub(crate) fn is_out(&self, token: Token) -> bool {
        self.out
            .get(&tag(token))
            .is_some_and(|delivery| delivery.token == token)
    }

    /// It was acknowledged.
    pub(crate) fn remove(&mut self, token: Token) {
        self.out.remove(&tag(token));
    }

    /// It was given back: it comes again, under another token.
    pub(crate) fn give_back(&mut self, token: Token) {
        if let Some(mut delivery) = self.out.remove(&tag(token)) {
            delivery.token.seq += 1 << TAG_BITS;
            delivery.redeliveries = delivery.redeliveries.map(|count| count.saturating_add(1));
            self.again.insert(tag(token), delivery);
        }
    }

    /// The first that is to come again; it is out from now on.
    pub(crate) fn take_again(&mut self) -> Option<Delivery> {
        let (_, delivery) = self.again.pop_first()?;
        self.add(&delivery);
        Some(delivery)
    }
}

#[cfg(test)]
mod tests {
    use postrider_contract::{Message, Origin, Position};

    use super::*;

    fn delivery(seq: u64) -> Delivery {
        Delivery {
            token: Token {
                lane: 0,
                epoch: 1,
                seq,
            },
            origin: Origin::Topic,
            redeliveries: Some(0),
            topic: "t".into(),
            position: Position::default(),
            message: Message::default(),
        }
    }

    #[test]
    fn what_is_given_back_comes_again_in_order_under_another_token() {
        let mut held = Held::default();
        let all: Vec<Delivery> = (1..=3).map(delivery).collect();
        for one in &all {
            held.add(one);
        }
        held.remove(all[1].token);
        held.give_back(all[2].token);
        held.give_back(all[0].token);
        assert!(!held.is_out(all[0].token));
        let first = held.take_again().unwrap();
        assert_eq!((tag(first.token), first.redeliveries), (1, Some(1)));
        assert_ne!(first.token, all[0].token);
        assert!(held.is_out(first.token) && !held.is_out(all[0].token));
        assert_eq!(held.take_again().map(|again| tag(again.token)), Some(3));
        assert!(held.take_again().is_none());
    }
}
