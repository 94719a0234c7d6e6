//! A lane of the adapter that is taken away at any moment.

use shuttle::future::{block_on, spawn};
use shuttle::rand::{Rng, thread_rng};

use crate::contract::{Token, Verdict};
use crate::meter::What;
use crate::stage::{Stage, deliveries};

const COUNT: u64 = 6;
const TAKEN: u32 = 1;

/// Two lanes work while one lane of the adapter is taken away: it is given up once, when nothing of it is unsettled; what
/// was not started of it gets no verdict; everything of the other gets one.
pub fn revoke() {
    block_on(async {
        let stage = Stage::new();
        let lanes: Vec<_> = [1, usize::MAX].map(|most| spawn(stage.clone().lane(most))).into();
        let settling = spawn(stage.clone().settle());

        let all = deliveries(COUNT);
        stage.settles.received(&all);
        stage.queue.push(&mut all.clone());
        for _ in 0..thread_rng().gen_range(0..4) {
            shuttle::future::yield_now().await;
        }
        stage.settles.revoke(&[TAKEN]);
        let dropped = stage.queue.discard(|token| token.lane == TAKEN);
        stage.settles.done(&dropped);
        // As the receiving side does: it looks whenever there is room again.
        let settled = loop {
            stage.settles.freed.notified().await;
            let emptied = stage.settles.emptied();
            if !emptied.is_empty() {
                assert_eq!(emptied, [TAKEN]);
                break of(TAKEN, &stage.outcome());
            }
        };
        let started = (COUNT / 2) as usize - dropped.len();
        assert_eq!(
            settled.len(),
            started,
            "given up when what was started of it is settled"
        );

        for delivery in stage.queue.close() {
            stage
                .settles
                .push(delivery.token, What::Released, Verdict::Release);
        }
        for lane in lanes {
            lane.await.unwrap();
        }
        stage.settles.close();
        settling.await.unwrap();
        assert_eq!(stage.settles.emptied(), [0_u32; 0], "given up once");
        let outcome = stage.outcome();
        assert_eq!(of(TAKEN, &outcome), settled, "nothing of it afterwards");
        assert_eq!(
            of(0, &outcome).len(),
            (COUNT / 2) as usize,
            "one verdict for each of the other"
        );
        assert_eq!(stage.settles.unsettled(), 0);
    });
}

fn of(lane: u32, tokens: &[Token]) -> Vec<Token> {
    tokens
        .iter()
        .copied()
        .filter(|token| token.lane == lane)
        .collect()
}
