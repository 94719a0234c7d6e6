//! Publishes: pipelined on one channel of their own, each answered when the broker has confirmed it.

use std::sync::Arc;
use std::time::Duration;
use std::vec;

use postrider_contract::{Error, ErrorKind, Receipt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::fault;
use crate::link::Link;
use crate::options::Settings;
use crate::outgoing::Parcel;
use crate::publish_loop::PublishLoop;
use crate::topology::Topology;

/// What becomes of one publish.
pub(crate) type Answer = Result<Receipt, Error>;

/// A batch on its way to the loop.
pub(crate) struct Batch {
    pub(crate) parcels: vec::IntoIter<Parcel>,
    pub(crate) deadline: Instant,
    pub(crate) answer: oneshot::Sender<Vec<Answer>>,
}

/// Requests to the loop.
pub(crate) enum Request {
    Publish(Batch),
    /// Answered when nothing is in flight any more; nothing new is taken.
    Finish(oneshot::Sender<()>),
}

/// Hands batches to the loop that sends them. Where a waiting call is dropped, a batch that is not begun is not sent any more.
pub(crate) struct Publisher {
    requests: mpsc::UnboundedSender<Request>,
    timeout: Duration,
}

impl Publisher {
    pub(crate) fn start(settings: &Arc<Settings>, link: &Arc<Link>, topology: &Arc<Topology>) -> Self {
        let (requests, inbox) = mpsc::unbounded_channel();
        tokio::spawn(PublishLoop::new(link.clone(), topology.clone()).run(inbox));
        Self {
            requests,
            timeout: settings.publish_timeout,
        }
    }

    /// Sends what was prepared; an answer for each, in order.
    pub(crate) async fn send(&self, parcels: Vec<Parcel>) -> Vec<Answer> {
        let count = parcels.len();
        if count == 0 {
            return Vec::new();
        }
        let (answer, answered) = oneshot::channel();
        let batch = Batch {
            parcels: parcels.into_iter(),
            deadline: Instant::now() + self.timeout,
            answer,
        };
        let closed = || (0..count).map(|_| Err(fault::closed())).collect();
        if self.requests.send(Request::Publish(batch)).is_err() {
            return closed();
        }
        answered.await.unwrap_or_else(|_| closed())
    }

    /// Sends a batch in which some could not be prepared; an answer for each, in order.
    pub(crate) async fn send_prepared(&self, prepared: Vec<Result<Parcel, Error>>) -> Vec<Answer> {
        let mut refused: Vec<Option<Error>> = Vec::with_capacity(prepared.len());
        let mut parcels = Vec::with_capacity(prepared.len());
        for one in prepared {
            match one {
                Ok(parcel) => {
                    parcels.push(parcel);
                    refused.push(None);
                }
                Err(error) => refused.push(Some(error)),
            }
        }
        let mut answers = self.send(parcels).await.into_iter();
        let missing = || {
            Err(Error::new(
                ErrorKind::Internal,
                "a publish was left without an answer",
            ))
        };
        refused
            .into_iter()
            .map(|refused| refused.map_or_else(|| answers.next().unwrap_or_else(missing), Err))
            .collect()
    }

    /// Waits until everything is confirmed, at most until the deadline, and takes nothing more.
    pub(crate) async fn finish(&self, deadline: Duration) {
        let (done, wait) = oneshot::channel();
        if self.requests.send(Request::Finish(done)).is_ok() {
            let _ = timeout(deadline, wait).await;
        }
    }
}
