//! Panics, timeouts and the drain's deadline: what ends a handler from outside.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::OptionFuture;
use tokio_util::sync::CancellationToken;

use crate::listener::{HandlerError, Outcome, Reason};

/// Runs a handler; a panic and a timeout are failures, `cut_off` releases the delivery. `before_wait` is called once if
/// the handler is not ready at once; one that is costs no timer.
pub(crate) async fn guarded<T>(
    handler: impl Future<Output = T>,
    timeout: Option<Duration>,
    cut_off: &CancellationToken,
    before_wait: impl FnOnce(),
) -> Result<T, Outcome> {
    // What the handler shares may be left half-changed by its panic, as in any thread: its locks are poisoned.
    let mut handler = pin!(OptionFuture::from(Some(AssertUnwindSafe(handler).catch_unwind())));
    let at_once = poll_fn(|task| Poll::Ready(handler.as_mut().poll(task))).await;
    let ended = match at_once {
        Poll::Ready(ended) => Ok(ended),
        Poll::Pending => {
            before_wait();
            let timed = async {
                match timeout {
                    Some(limit) => tokio::time::timeout(limit, handler.as_mut())
                        .await
                        .map_err(|_| ran_past(limit)),
                    None => Ok(handler.as_mut().await),
                }
            };
            let ended = tokio::select! {
                biased;
                ended = timed => ended,
                () = cut_off.cancelled() => Err(Outcome::Release),
            };
            if ended.is_err() {
                // Here, and not when this ends: what the handler holds may panic.
                let dropped = catch_unwind(AssertUnwindSafe(|| handler.set(None.into())));
                if let Err(panic) = dropped {
                    let text = panic_text(&*panic);
                    tracing::error!(
                        "what a handler held that was ended panicked when it was dropped: {text}"
                    );
                }
            }
            ended
        }
    };
    match ended? {
        Some(Ok(value)) => Ok(value),
        Some(Err(panic)) => Err(Outcome::Failed(panicked("the handler", &*panic))),
        // It was dropped, which only what ends it from outside does.
        None => Err(Outcome::Release),
    }
}

fn ran_past(limit: Duration) -> Outcome {
    let limit = humantime::format_duration(limit);
    let text = format!("the handler ran past its timeout of {limit}");
    Outcome::Failed(HandlerError::with_reason(Reason::Timeout, text))
}

/// Decodes a payload outside of a handler; a panic is a failure.
pub(crate) fn caught<T>(decode: impl FnOnce() -> Result<T, HandlerError>) -> Result<T, HandlerError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| Err(panicked("decoding", &*panic)))
}

fn panicked(what: &str, panic: &(dyn std::any::Any + Send)) -> HandlerError {
    HandlerError::with_reason(Reason::Panic, format!("{what} panicked: {}", panic_text(panic)))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn reason_of(handler: impl Future<Output = ()>, timeout: Option<Duration>) -> Reason {
        match guarded(handler, timeout, &CancellationToken::new(), || ()).await {
            Err(Outcome::Failed(error)) => error.reason(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn panics_timeouts_and_cut_offs_end_a_handler() {
        assert_eq!(reason_of(async { panic!("boom") }, None).await, Reason::Panic);
        let limit = Some(Duration::from_secs(1));
        assert_eq!(reason_of(std::future::pending(), limit).await, Reason::Timeout);
        let cut_off = CancellationToken::new();
        assert!(
            guarded(async { 7 }, limit, &cut_off, || ())
                .await
                .is_ok_and(|seven| seven == 7)
        );
        cut_off.cancel();
        let released = guarded(std::future::pending::<()>(), limit, &cut_off, || ()).await;
        assert!(matches!(released, Err(Outcome::Release)));
    }
}
