//! The engine's own files.
#![allow(dead_code, unreachable_pub, reason = "the models use a part of the engine")]

/// Locks and wake-ups with which another task may go on at every use.
pub(crate) mod sync {
    pub(crate) use std::sync::PoisonError;

    pub(crate) use shuttle::sync::{Mutex, MutexGuard};
    use tokio::sync::futures::Notified;

    /// The one that the engine has, which knows nothing of schedules.
    pub(crate) struct Notify(tokio::sync::Notify);

    impl Notify {
        pub(crate) fn new() -> Self {
            Self(tokio::sync::Notify::new())
        }

        pub(crate) fn notified(&self) -> Notified<'_> {
            shuttle::thread::yield_now();
            self.0.notified()
        }

        pub(crate) fn notify_one(&self) {
            shuttle::thread::yield_now();
            self.0.notify_one();
        }

        pub(crate) fn notify_waiters(&self) {
            shuttle::thread::yield_now();
            self.0.notify_waiters();
        }
    }
}

#[path = "../../../../sdk/src/engine/queue.rs"]
pub(crate) mod queue;
#[path = "../../../../sdk/src/engine/settles.rs"]
pub(crate) mod settles;
