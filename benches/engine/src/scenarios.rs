//! What is counted: a listener for each way of using one.

use postrider::prelude::{Acker, Bytes, Deserialize, HandlerError, Serialize, listener, listeners};
use postrider::{App, Error, Registration};

/// The payload of every scenario.
#[derive(postrider::Message, Serialize, Deserialize)]
#[message(topic = "bench", key = id)]
pub(crate) struct Sample {
    pub(crate) id: u64,
    pub(crate) quantity: u32,
}

#[derive(postrider::Message, Serialize)]
#[message(topic = "bench.reply")]
struct Reply {
    id: u64,
}

/// Nothing but the decoded payload.
#[listener(topic = "bench", prefetch = 256, retry(attempts = 1))]
async fn plain(sample: Sample) {
    std::hint::black_box((sample.id, sample.quantity));
}

/// As `plain` without the decoding: what is left is the runtime and the embedded broker.
#[listener(topic = "bench", prefetch = 256, retry(attempts = 1))]
async fn bytes(sample: Bytes) {
    std::hint::black_box(sample);
}

/// Retries, dead letters, a time limit and metrics.
#[listener(
    topic = "bench",
    prefetch = 256,
    retry(attempts = 5, backoff = "200ms..30s"),
    timeout = "10s"
)]
async fn full(sample: Sample) -> Result<(), HandlerError> {
    std::hint::black_box((sample.id, sample.quantity));
    Ok(())
}

#[listener(topic = "bench", prefetch = 256, concurrency = 4)]
async fn four(sample: Sample) -> Result<(), HandlerError> {
    std::hint::black_box((sample.id, sample.quantity));
    Ok(())
}

#[listener(topic = "bench", prefetch = 256, concurrency = 4, ordered)]
async fn ordered(sample: Sample) -> Result<(), HandlerError> {
    std::hint::black_box((sample.id, sample.quantity));
    Ok(())
}

#[listener(topic = "bench", prefetch = 256, batch(size = 64, wait = "1ms"))]
async fn batch(samples: Vec<Sample>) -> Result<(), HandlerError> {
    std::hint::black_box(samples);
    Ok(())
}

#[listener(topic = "bench", prefetch = 256, ack = manual)]
async fn manual(sample: Sample, ack: Acker) -> Result<(), HandlerError> {
    std::hint::black_box((sample.id, sample.quantity));
    ack.ack().await?;
    Ok(())
}

#[listener(topic = "bench", prefetch = 256, publish = "bench.reply")]
async fn reply(sample: Sample) -> Result<Reply, HandlerError> {
    Ok(Reply { id: sample.id })
}

/// The app of a scenario. Metrics are recorded in `full` alone.
pub(crate) fn app(scenario: &str, url: &str) -> Result<App, Error> {
    let app = App::new(url)?.name("bench");
    if scenario == "full" {
        // The recorder of the operations endpoint: without one, series go nowhere and cost nothing.
        return Ok(app.ops("0")?.listen(listeners![full]));
    }
    Ok(app.metrics(false).listen(listeners(scenario)))
}

fn listeners(scenario: &str) -> Vec<Registration> {
    match scenario {
        "plain" | "headers" => listeners![plain],
        "bytes" => listeners![bytes],
        "four" => listeners![four],
        "ordered" => listeners![ordered],
        "batch" => listeners![batch],
        "manual" => listeners![manual],
        "reply" => listeners![reply],
        "publish" => listeners![],
        other => panic!("unknown scenario {other}"),
    }
}
