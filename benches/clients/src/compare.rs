//! Every work on every side, in turn, three times.

use crate::latency;
use crate::probe::Cost;
use crate::sdk;
use crate::statistics::{median, rate, ratio};
use crate::system::{Side, System, Work};

const ROUNDS: usize = 3;
const SIZES: [(usize, &str); 3] = [(100, "100 B"), (1_000, "1 KB"), (64_000, "64 KB")];
const ALL: [Side; 3] = [Side::Naive, Side::Tuned, Side::Sdk];
/// Nothing can be tuned where each message waits for the one before.
const ONE_BY_ONE: [Side; 2] = [Side::Naive, Side::Sdk];

/// What one work cost: by side, in each round.
struct Row {
    what: String,
    costs: [Vec<Cost>; 3],
}

impl Row {
    fn rates(&self, side: Side) -> Vec<f64> {
        self.costs[side as usize].iter().map(|cost| cost.rate).collect()
    }

    fn computed(&self, side: Side) -> Vec<f64> {
        self.costs[side as usize]
            .iter()
            .map(|cost| cost.computed)
            .collect()
    }

    /// A line of the table.
    fn told(&self, broker: &str) -> String {
        let [naive, tuned, sdk] = ALL.map(|side| self.rates(side));
        let best = if tuned.is_empty() {
            Side::Naive
        } else {
            Side::Tuned
        };
        format!(
            "| {broker} | {} | {} | {} | {} | {} | {} | {} |",
            self.what,
            rate(&naive),
            rate(&tuned),
            rate(&sdk),
            ratio(&sdk, &naive),
            ratio(&sdk, &tuned),
            ratio(&self.computed(Side::Sdk), &self.computed(best)),
        )
    }
}

pub(crate) async fn compare(brokers: &[String]) {
    println!(
        "| broker | work | naive, /s | tuned, /s | Postrider, /s | × naive | × tuned | processor time × tuned |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|");
    let (mut latencies, mut settings) = (Vec::new(), Vec::new());
    for broker in brokers {
        let system = System::new(broker);
        sdk::declare(&system.url).await;
        let mut slowest = f64::INFINITY;
        for work in [Work::Consume, Work::PublishMany] {
            for (size, label) in SIZES {
                let row = measure(&system, work, size, &ALL, label).await;
                if size == 100 {
                    let side = |side| median(&row.rates(side));
                    slowest = slowest.min(side(Side::Tuned)).min(side(Side::Sdk));
                }
            }
        }
        measure(&system, Work::PublishOne, 1_000, &ONE_BY_ONE, "1 KB").await;
        measure(&system, Work::Forward, 1_000, &ALL, "1 KB").await;
        latencies.push(latency::compare(&system, load(slowest)).await);
        settings.push(system.raw.about().await);
        system.raw.delete().await;
    }
    latency::print(&latencies);
    println!("\nThe same on all sides:\n");
    for line in settings {
        println!("- {line}.");
    }
}

/// Where a message is published once and consumed by two groups, all on the one machine: about half of what it can take.
fn load(slowest: f64) -> f64 {
    (slowest / 6.0).min(20_000.0)
}

async fn measure(system: &System, work: Work, size: usize, sides: &[Side], label: &str) -> Row {
    let what = match work {
        Work::Consume => format!("consume {label}"),
        Work::PublishMany => format!("publish {label}, many at once"),
        Work::PublishOne => format!("publish {label}, one by one"),
        Work::Forward => format!("consume and publish {label}"),
    };
    let mut costs: [Vec<Cost>; 3] = Default::default();
    for round in 0..ROUNDS {
        // Another one begins each time.
        for turn in 0..sides.len() {
            let side = sides[(round + turn) % sides.len()];
            costs[side as usize].push(system.measure(work, size, side).await);
        }
    }
    let row = Row { what, costs };
    let told = row.told(system.name);
    println!("{told}");
    eprintln!("{told}");
    row
}

/// One side of one work, again and again: for a profiler.
pub(crate) async fn one(arguments: &[String]) {
    let [broker, work, size, side] = arguments else {
        panic!("one <broker> consume|publish|publish-one|forward <size> naive|tuned|sdk")
    };
    let work = match &**work {
        "consume" => Work::Consume,
        "publish" => Work::PublishMany,
        "publish-one" => Work::PublishOne,
        "forward" => Work::Forward,
        other => panic!("unknown work {other}"),
    };
    let side = match &**side {
        "naive" => Side::Naive,
        "tuned" => Side::Tuned,
        "sdk" => Side::Sdk,
        other => panic!("unknown side {other}"),
    };
    let system = System::new(broker);
    sdk::declare(&system.url).await;
    for _ in 0..5 {
        let cost = system.measure(work, size.parse().unwrap(), side).await;
        eprintln!("{:.0}/s, {:.2} µs computed for each", cost.rate, cost.computed);
    }
}
