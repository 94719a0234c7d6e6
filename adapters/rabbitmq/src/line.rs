//! Questions to the broker, and the answers that do not come.

use std::io;
use std::pin::pin;
use std::time::Duration;

use lapin::{Channel, Connection};
use tokio::time::{Instant, timeout};

use crate::link::Live;

/// A broker that has lost its majority does not answer a declaration.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at whether an answer can still come.
const LOOK: Duration = Duration::from_millis(250);

/// A new channel, within reason.
pub(crate) async fn open_channel(live: &Live) -> lapin::Result<Channel> {
    answer(&*live.connection, live.connection.create_channel()).await
}

/// What a question is asked on.
pub(crate) trait Line {
    /// No answer can come by it any more.
    fn is_cut(&self) -> bool;
}

impl Line for Connection {
    fn is_cut(&self) -> bool {
        !self.status().connected()
    }
}

impl Line for Channel {
    fn is_cut(&self) -> bool {
        !self.status().connected()
    }
}

/// Waits for an answer of the broker, within reason. What is asked in the moment in which a connection is lost the client
/// library may never answer, neither with an error (lapin 4.12.3), so the line is looked at, too.
pub(crate) async fn answer<T>(
    line: &impl Line,
    step: impl Future<Output = lapin::Result<T>>,
) -> lapin::Result<T> {
    let mut step = pin!(step);
    let deadline = Instant::now() + PATIENCE;
    let mut was_cut = false;
    loop {
        if let Ok(answered) = timeout(LOOK, &mut step).await {
            return answered;
        }
        // The error itself, which tells more, may be on its way: it has until the next look.
        if was_cut {
            let text = "the connection was lost before the broker answered";
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, text).into());
        }
        was_cut = line.is_cut();
        if Instant::now() >= deadline {
            let text = format!("no answer within {PATIENCE:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::sleep;

    use super::*;

    /// A connection that somebody else ends.
    #[derive(Default)]
    struct Wire(AtomicBool);

    impl Line for Wire {
        fn is_cut(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn kind(answered: lapin::Result<()>) -> io::ErrorKind {
        let error = answered.unwrap_err();
        match error.kind() {
            lapin::ErrorKind::IOError(error) => error.kind(),
            other => panic!("{other:?}"),
        }
    }

    /// What the client library does with a question that is asked while the connection is reset.
    #[tokio::test(start_paused = true)]
    async fn a_question_that_a_lost_connection_swallowed_ends() {
        let wire = Wire::default();
        let begin = Instant::now();
        let cut = async {
            sleep(Duration::from_secs(5)).await;
            wire.0.store(true, Ordering::Relaxed);
        };
        let (answered, ()) = futures_util::join!(answer(&wire, pending()), cut);
        assert_eq!(kind(answered), io::ErrorKind::ConnectionAborted);
        assert!(
            begin.elapsed() <= Duration::from_secs(5) + 3 * LOOK,
            "{:?}",
            begin.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_librarys_own_error_is_waited_for() {
        let wire = Wire(true.into());
        let late = async {
            sleep(LOOK + LOOK / 2).await;
            Err(io::Error::from(io::ErrorKind::ConnectionReset).into())
        };
        assert_eq!(kind(answer(&wire, late).await), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_broker_has_its_time() {
        let begin = Instant::now();
        let answered = answer(&Wire::default(), pending()).await;
        assert_eq!(kind(answered), io::ErrorKind::TimedOut);
        assert!((PATIENCE..=PATIENCE + LOOK).contains(&begin.elapsed()));
        let slow = async {
            sleep(PATIENCE * 9 / 10).await;
            Ok(())
        };
        answer(&Wire::default(), slow).await.unwrap();
        answer(&Wire(true.into()), ready(Ok(()))).await.unwrap();
    }
}
