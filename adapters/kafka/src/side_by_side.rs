//! The same question for many listeners at once: each waits for the broker a dozen times.

use std::future::Future;
use std::sync::Arc;

use postrider_contract::{Error, ErrorKind};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const AT_ONCE: usize = 8;

/// Runs all of them, some at a time, and answers in their order.
pub(crate) async fn side_by_side<T, F>(work: impl IntoIterator<Item = F>) -> Vec<Result<T, Error>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for (index, work) in work.into_iter().enumerate() {
        let room = room.clone();
        running.spawn(async move {
            let _place = room.acquire_owned().await;
            (index, work.await)
        });
    }
    let mut answers = Vec::new();
    answers.resize_with(running.len(), || None);
    while let Some(done) = running.join_next().await {
        if let Ok((index, answer)) = done
            && let Some(place) = answers.get_mut(index)
        {
            *place = Some(answer);
        }
    }
    let ended = || Err(Error::new(ErrorKind::Internal, "a task ended early"));
    answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(ended))
        .collect()
}
