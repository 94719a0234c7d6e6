//! How long a message takes from when it was due to when it is handled, under a load that does not wait for anybody.

use crate::sdk;
use crate::statistics::median;
use crate::system::System;

const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];
const ROUNDS: usize = 7;

/// A line of the table: the tuned loops and the SDK side by side.
pub(crate) async fn compare(system: &System, load: f64) -> String {
    let (mut tuned, mut sdk) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let [raw, ours] = system.latency(load, &QUANTILES).await;
        tuned.push(raw);
        sdk.push(ours);
    }
    let line = format!(
        "| {} | {load:.0}/s | {} | {} | {} | {} |",
        system.name,
        told(&tuned),
        told(&sdk),
        added(&tuned, &sdk, 0),
        added(&tuned, &sdk, 1),
    );
    eprintln!("{line}");
    line
}

/// The median of each quantile, in milliseconds.
fn told(runs: &[Vec<f64>]) -> String {
    let at = |quantile: usize| {
        let values: Vec<f64> = runs.iter().map(|run| run[quantile] / 1000.0).collect();
        format!("{:.2}", median(&values))
    };
    [at(0), at(1), at(2)].join(" / ")
}

/// How much more it is on the second side, in milliseconds: the median of the rounds, and from which to which.
fn added(tuned: &[Vec<f64>], sdk: &[Vec<f64>], quantile: usize) -> String {
    let mut added: Vec<f64> = tuned
        .iter()
        .zip(sdk)
        .map(|(tuned, sdk)| (sdk[quantile] - tuned[quantile]) / 1000.0)
        .collect();
    added.sort_by(f64::total_cmp);
    format!(
        "{:+.2} ({:+.2} to {:+.2})",
        median(&added),
        added[0],
        added[added.len() - 1]
    )
}

pub(crate) fn print(lines: &[String]) {
    println!("\nLatency in milliseconds, p50 / p99 / p99.9, of messages of 100 B:\n");
    println!("| broker | load | tuned | Postrider | added to p50 | added to p99 |");
    println!("|---|---|---:|---:|---:|---:|");
    for line in lines {
        println!("{line}");
    }
}

/// The lines of these brokers at this load alone.
pub(crate) async fn latency(arguments: &[String]) {
    let [load, brokers @ ..] = arguments else {
        panic!("latency <messages a second> <broker>…")
    };
    let mut lines = Vec::new();
    for broker in brokers {
        let system = System::new(broker);
        sdk::declare(&system.url).await;
        lines.push(compare(&system, load.parse().unwrap()).await);
        system.raw.delete().await;
    }
    print(&lines);
}
