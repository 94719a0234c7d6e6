//! Handles of series are resolved at start-up: however many messages go through, the recorder is asked for no more. This
//! process has a recorder of its own, as an application may.

use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use postrider::prelude::*;

/// How often a handle was asked for.
static RESOLVED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

impl Recorder for Counting {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        RESOLVED.fetch_add(1, Ordering::Relaxed);
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        RESOLVED.fetch_add(1, Ordering::Relaxed);
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        RESOLVED.fetch_add(1, Ordering::Relaxed);
        Histogram::noop()
    }
}

/// Handles, retries, gives up, and publishes.
#[listener(
    topic = "handles.order",
    publish = "handles.stock",
    concurrency = 4,
    retry(attempts = 2, backoff = "1ms")
)]
async fn reserve(order: Json<u64>, attempt: Attempt) -> Result<Reserved, HandlerError> {
    match order.0 % 4 {
        0 => Err("always".into()),
        1 if attempt.0 == 1 => Err("once".into()),
        _ => Ok(Reserved { order: order.0 }),
    }
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "handles.stock")]
struct Reserved {
    order: u64,
}

#[listener(topic = "handles.stock", batch(size = 16, wait = "1ms"))]
async fn ship(_: Vec<Reserved>) {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_handle_is_resolved_for_a_message() {
    metrics::set_global_recorder(Counting).unwrap();
    let app = App::new("memory://handles").unwrap().name("handles");
    #[cfg(feature = "ops")]
    let app = app.ops("0").unwrap();
    let running = app.listen(listeners![reserve, ship]).start().await.unwrap();
    running.ready().await.unwrap();
    let publisher = running.publisher();
    let mut sent = 0;
    let mut send = async |count: u64| {
        for _ in 0..count {
            publisher.topic("handles.order").send_json(&sent).await.unwrap();
            sent += 1;
        }
        let done = || {
            let status = running.status();
            let (first, second) = (status[0].counts, status[1].counts);
            first.handled + first.dead_lettered == sent && second.handled == first.handled
        };
        while !done() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        RESOLVED.load(Ordering::Relaxed)
    };
    let begin = send(4).await;
    assert!(begin > 60, "{begin}");
    assert_eq!(send(2_000).await, begin);

    #[cfg(feature = "ops")]
    {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = running.ops_address().unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.contains(" 404 ") && answer.contains("recorder of its own"),
            "{answer}"
        );
    }
    running.shutdown().await.unwrap();
}
