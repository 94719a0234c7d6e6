use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::check::Planned;
use super::dedup::Stores;
use crate::contract::{Backoff, Broker, Growth, Guarantee};
use crate::listener::Retry;

/// `5 x 200ms..30s`, `5 x linear 1s..30s`, `5 x 5s within 1h`.
fn told(attempts: u32, retry: &Retry) -> String {
    let time = humantime::format_duration;
    let Backoff { base, cap, growth } = retry.backoff;
    let waits = match growth {
        _ if base == cap => time(base).to_string(),
        Growth::Exponential => format!("{}..{}", time(base), time(cap)),
        Growth::Linear => format!("linear {}..{}", time(base), time(cap)),
    };
    let within = retry.max_age.map(|age| format!(" within {}", time(age)));
    format!("{attempts} x {waits}{}", within.unwrap_or_default())
}

/// What is started, a line for each listener, and what each broker cannot promise.
pub(super) fn table(
    planned: &[Planned],
    brokers: &BTreeMap<String, Arc<dyn Broker>>,
    stores: &Stores,
) -> String {
    let header = [
        "listener",
        "topic",
        "group",
        "broker",
        "guarantee",
        "retry",
        "dead letters",
    ]
    .map(str::to_owned);
    let mut rows = vec![header];
    for listener in planned {
        let can = brokers.get(&listener.broker).map(|broker| broker.capabilities());
        let settings = &listener.resolved.settings;
        let retry = match settings.retry.attempts {
            1 => "none".to_owned(),
            attempts => told(attempts, &settings.retry),
        };
        let guarantee = match can.map(|can| &can.guarantee) {
            Some(Guarantee::AtLeastOnce) if !settings.broadcast => "at least once",
            _ => "at most once",
        };
        rows.push([
            listener.spec.listener.to_string(),
            listener.spec.topic().to_string(),
            listener.spec.group.to_string(),
            can.map_or("?", |can| can.system).to_owned(),
            guarantee.to_owned(),
            retry,
            listener.dead_letter().to_string(),
        ]);
    }
    let mut text = String::from("starting\n");
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    for row in &rows {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str("  ");
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    for listener in planned {
        if let (Some(dedup), Some(store)) = (
            listener.resolved.settings.dedup,
            stores.of(&listener.spec.listener),
        ) {
            let by = dedup
                .key
                .map_or("message id".to_owned(), |key| format!("field `{key}`"));
            let _ = writeln!(
                text,
                "  {} recognizes duplicates for {} by the {by}; the marks are {}",
                listener.spec.listener,
                humantime::format_duration(dedup.window),
                store.describe()
            );
        }
    }
    for broker in brokers.values() {
        if let Guarantee::AtMostOnce(why) = &broker.capabilities().guarantee {
            let _ = writeln!(
                text,
                "  {} can lose messages: {why}",
                broker.capabilities().system
            );
        }
    }
    text
}
