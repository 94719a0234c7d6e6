use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use postrider_contract::Bytes;
use tokio::sync::Notify;

/// Beside the number of messages, their size is limited.
const BYTES: usize = 64 * 1024 * 1024;

/// Between the socket and the inbox. Full, it turns away what arrives: what waits longest has waited for its turn, and
/// another instance may have received what is turned away here.
#[derive(Debug)]
pub(crate) struct Queue {
    most: usize,
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Bytes>,
    bytes: usize,
    ended: bool,
}

impl Queue {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            waiting: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// False if there is no room.
    pub(crate) fn push(&self, message: Bytes) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = waiting.messages.is_empty() || waiting.bytes + message.len() <= BYTES;
        if waiting.messages.len() >= self.most || !fits {
            return false;
        }
        waiting.bytes += message.len();
        waiting.messages.push_back(message);
        drop(waiting);
        self.arrived.notify_one();
        true
    }

    /// Nothing more will come.
    pub(crate) fn end(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.arrived.notify_one();
    }

    /// Waits for messages and takes some; none when it has ended.
    pub(crate) async fn take(&self, count: usize, bytes: usize) -> Vec<Bytes> {
        loop {
            {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let (mut taken, mut size) = (Vec::new(), 0);
                while taken.len() < count {
                    let Some(next) = waiting.messages.front() else {
                        break;
                    };
                    if !taken.is_empty() && size + next.len() > bytes {
                        break;
                    }
                    size += next.len();
                    taken.extend(waiting.messages.pop_front());
                }
                waiting.bytes -= size;
                if !taken.is_empty() || waiting.ended {
                    return taken;
                }
            }
            self.arrived.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_away_what_does_not_fit() {
        let queue = Queue::new(2);
        assert!(queue.push("a".into()) && queue.push("b".into()) && !queue.push("c".into()));
        assert_eq!(queue.take(10, 10).await, ["a", "b"]);
        queue.end();
        assert!(queue.take(10, 10).await.is_empty());
    }

    #[tokio::test]
    async fn one_message_always_fits() {
        let queue = Queue::new(2);
        let large = Bytes::from(vec![0; BYTES + 1]);
        assert!(queue.push(large) && !queue.push("a".into()));
        assert_eq!(queue.take(10, 1).await.len(), 1);
    }
}
