//! The queue of a `broadcast` instance: only its connection sees it, and it lives as long as that.

use lapin::Channel;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{FieldTable, ShortString};

use crate::fault;
use crate::line::{answer, open_channel};
use crate::link::Live;

pub(crate) struct OwnQueue {
    pub(crate) live: Live,
    name: ShortString,
}

impl OwnQueue {
    /// Its name: that of the former one where it is still there, since what nobody has settled is in it.
    pub(crate) async fn declare(
        former: &mut Option<Self>,
        live: &Live,
        channel: &Channel,
    ) -> lapin::Result<ShortString> {
        let options = QueueDeclareOptions {
            exclusive: true,
            passive: former.is_some(),
            ..QueueDeclareOptions::default()
        };
        let name = former.as_ref().map(|former| former.name.clone());
        let declaring = channel.queue_declare(name.unwrap_or_default(), options, FieldTable::default());
        match answer(channel, declaring).await {
            Ok(queue) => {
                let (live, name) = (live.clone(), queue.name().clone());
                *former = Some(Self { live, name });
                Ok(queue.name().clone())
            }
            Err(error) => {
                // Somebody deleted it: the next time there is another.
                former.take_if(|_| fault::is_no_queue(&error));
                Err(error)
            }
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        !self.live.connection.status().connected()
    }

    /// Without a reader it would only fill.
    pub(crate) async fn delete(self) {
        if let Ok(channel) = open_channel(&self.live).await {
            let deleting = channel.queue_delete(self.name, QueueDeleteOptions::default());
            let _ = answer(&channel, deleting).await;
        }
    }
}
