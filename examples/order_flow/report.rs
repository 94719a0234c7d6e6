//! What is shown at the end.

use std::collections::HashMap;
use std::time::Duration;

use postrider::ListenerStatus;

/// What every listener has done in this run. What it acknowledged of other runs is not counted as handled.
pub(crate) fn table(status: &[ListenerStatus], foreign: &HashMap<String, u64>) -> String {
    let header = [
        "listener",
        "topic",
        "group",
        "handled",
        "retried",
        "dead-lettered",
    ]
    .map(str::to_owned);
    let row = |listener: &ListenerStatus| {
        let others = foreign.get(&listener.name).copied().unwrap_or(0);
        [
            listener.name.clone(),
            listener.topic.clone(),
            listener.group.clone(),
            grouped(listener.counts.handled.saturating_sub(others)),
            grouped(listener.counts.retried),
            grouped(listener.counts.dead_lettered),
        ]
    };
    let rows: Vec<_> = std::iter::once(header).chain(status.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let line = |row: &[String; 6]| {
        let mut text = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            // Words to the left, numbers to the right.
            let cell = if column < 3 {
                format!("{cell:width$}")
            } else {
                format!("{cell:>width$}")
            };
            text.push_str(&cell);
            text.push_str(if column < 5 { "  " } else { "\n" });
        }
        text
    };
    rows.iter().map(line).collect()
}

/// How fast it was.
pub(crate) fn rate(orders: usize, status: &[ListenerStatus], took: Duration) -> String {
    let deliveries: u64 = status.iter().map(|listener| listener.counts.received).sum();
    let per_second = |count: u64| grouped((count as f64 / took.as_secs_f64()) as u64);
    format!(
        "{} orders in {:.1} s: {} orders/s, {} deliveries/s",
        grouped(orders as u64),
        took.as_secs_f64(),
        per_second(orders as u64),
        per_second(deliveries)
    )
}

/// A number with its thousands set apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
