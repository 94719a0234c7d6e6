//! A listener that tells what it saw, and where the brokers are.

use std::time::Duration;

use postrider::prelude::*;
use postrider::{App, Running};
use tokio::sync::mpsc;

/// What a handler saw of one message.
#[derive(Debug, PartialEq)]
pub(crate) struct Saw {
    pub(crate) order: serde_json::Value,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) key: Option<String>,
}

#[listener(topic = "interop.in")]
async fn tell(
    order: Json<serde_json::Value>,
    headers: Headers,
    key: Key,
    State(seen): State<mpsc::Sender<Saw>>,
) {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect();
    let key = key.0.map(|key| String::from_utf8_lossy(&key).into_owned());
    let _ = seen
        .send(Saw {
            order: order.0,
            headers,
            key,
        })
        .await;
}

/// A listener on `interop.in` in a group of its own.
pub(crate) async fn listen(url: &str) -> (Running, mpsc::Receiver<Saw>) {
    let (sender, receiver) = mpsc::channel(10);
    let name = format!("interop-{}", uuid::Uuid::now_v7().simple());
    let app = App::new(url)
        .unwrap()
        .name(name)
        .state(sender)
        .listen(listeners![tell]);
    let running = app.start().await.unwrap();
    running.ready().await.unwrap();
    (running, receiver)
}

/// The next message that carries this mark: others may use the topic at the same time.
pub(crate) async fn marked(receiver: &mut mpsc::Receiver<Saw>, mark: &str) -> Saw {
    let find = async {
        loop {
            let saw = receiver.recv().await.expect("the listener goes on");
            if saw.order["mark"] == mark {
                return saw;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), find)
        .await
        .expect("the message arrives")
}

/// What nobody else writes.
pub(crate) fn mark() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// What every broker's native form of this must show.
pub(crate) async fn publish(running: &Running, mark: &str) {
    let publisher = running.publisher();
    let draft = publisher
        .topic("interop.out")
        .key("k-1")
        .header("tenant", "acme")
        .header("correlation-id", "c-1");
    let draft = draft.header(
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    );
    draft
        .id(mark)
        .send_json(&serde_json::json!({ "mark": mark }))
        .await
        .unwrap();
}
