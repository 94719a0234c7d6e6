//! How long a message takes from when it was due to when it is handled, under a load that does not wait for anybody.

use crate::compare::ROUNDS;
use crate::statistics::median;
use crate::system::{Side, System};

const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];

/// A line of the table: the tuned loops and the SDK in turn.
pub(crate) async fn compare(system: &System, load: f64) -> String {
    let (mut tuned, mut sdk) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                tuned.push(system.latency(Side::Tuned, load, &QUANTILES).await);
            } else {
                sdk.push(system.latency(Side::Sdk, load, &QUANTILES).await);
            }
        }
    }
    let added: Vec<f64> = sdk
        .iter()
        .zip(&tuned)
        .map(|(sdk, tuned)| sdk[1] - tuned[1])
        .collect();
    let least = added.iter().copied().fold(f64::INFINITY, f64::min);
    let most = added.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let line = format!(
        "| {} | {load:.0}/s | {} | {} | {:+.2} ({:+.2} to {:+.2}) |",
        system.name,
        told(&tuned),
        told(&sdk),
        median(&added) / 1000.0,
        least / 1000.0,
        most / 1000.0
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

pub(crate) fn print(lines: &[String]) {
    println!("\nLatency in milliseconds, p50 / p99 / p99.9, of messages of 100 B:\n");
    println!("| broker | load | tuned | Postrider | added to p99 |");
    println!("|---|---|---:|---:|---:|");
    for line in lines {
        println!("{line}");
    }
}
