//! The SDK beside raw loops on the client libraries, against real brokers: `benches/run clients` and `benches/run scale`.
//!
//! `compare <broker>…` sets the SDK against raw loops, `many` starts a thousand listeners, `keys` keeps the order of up to
//! 100,000 keys, `processes <file.svg> <broker>…` shares a topic among processes. Each prints tables. `one <broker>
//! consume|publish|publish-one|forward <size> naive|tuned|sdk` does one of them five times, for a profiler; `latency
//! <messages a second> <broker>…` measures that alone; brokers are found through `POSTRIDER_TEST_<BROKER>_URL`.

mod compare;
mod kafka;
mod keys;
mod latency;
mod many;
mod plot;
mod probe;
mod processes;
mod rabbitmq;
mod raw;
mod redis;
mod sdk;
mod statistics;
mod system;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    // In a task, as all that a service does.
    tokio::spawn(run(what, rest)).await.unwrap();
}

async fn run(what: String, rest: Vec<String>) {
    match &*what {
        "compare" => compare::compare(&rest).await,
        "one" => compare::one(&rest).await,
        "latency" => latency::latency(&rest).await,
        "many" => many::many().await,
        "keys" => keys::keys().await,
        "processes" => processes::processes(&rest[1..], &rest[0]).await,
        "worker" => processes::worker(&rest[0]).await,
        other => panic!("unknown {other:?}: compare, one, latency, many, keys, processes, worker"),
    }
}
