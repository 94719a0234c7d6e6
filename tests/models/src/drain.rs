//! A drain at any moment.

use shuttle::future::{block_on, spawn};
use shuttle::rand::{Rng, thread_rng};

use crate::contract::{Token, Verdict};
use crate::meter::What;
use crate::stage::{Stage, deliveries};

const COUNT: u64 = 6;

/// Two lanes work while deliveries come, and a drain closes the queue at any moment: each delivery gets one verdict, and
/// every task ends.
pub fn drain() {
    block_on(async {
        let stage = Stage::new();
        let lanes: Vec<_> = [2, usize::MAX].map(|most| spawn(stage.clone().lane(most))).into();
        let settling = spawn(stage.clone().settle());

        let all = deliveries(COUNT);
        let mut expected: Vec<Token> = all.iter().map(|delivery| delivery.token).collect();
        let at = thread_rng().gen_range(0..=3);
        let mut open = true;
        for (nth, some) in all.chunks(2).enumerate() {
            if nth == at {
                open = close(&stage);
            }
            stage.settles.received(some);
            if open {
                stage.queue.push(&mut some.to_vec());
            } else {
                for delivery in some {
                    stage
                        .settles
                        .push(delivery.token, What::Released, Verdict::Release);
                }
            }
            shuttle::future::yield_now().await;
        }
        if open {
            close(&stage);
        }
        for lane in lanes {
            lane.await.unwrap();
        }
        stage.settles.close();
        settling.await.unwrap();

        expected.sort_unstable();
        assert_eq!(stage.outcome(), expected, "one verdict for each");
        assert_eq!(stage.settles.unsettled(), 0);
    });
}

/// Gives back what was not started.
fn close(stage: &Stage) -> bool {
    for delivery in stage.queue.close() {
        stage
            .settles
            .push(delivery.token, What::Released, Verdict::Release);
    }
    false
}
