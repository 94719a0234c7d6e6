//! The contract's lines against the brokers, from what the suites recorded.
//!
//! `contract_table <folder>` prints the table; `--check <file>` fails where the table in that file, between
//! `<!-- contract -->` and `<!-- /contract -->`, is another; `--write <file>` puts it there, and how late retries were
//! between `<!-- delays -->` and `<!-- /delays -->`. It fails where a case failed; with `--check` or `--write` also where
//! one was not run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use postrider_conformance::lines::LINES;
use postrider_conformance::record::{Outcome, Recorded};

/// As recorded, and as headed.
const BROKERS: [(&str, &str); 5] = [
    ("memory", "memory"),
    ("kafka", "Kafka"),
    ("rabbitmq", "RabbitMQ"),
    ("redis", "Redis Streams"),
    ("redis+pubsub", "Redis Pub/Sub"),
];

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("contract_table: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (folder, file) = match arguments[..] {
        [folder] => (folder, None),
        [folder, "--check", file] => (folder, Some((file, false))),
        [folder, "--write", file] => (folder, Some((file, true))),
        _ => return Err("usage: contract_table <folder> [--check <file> | --write <file>]".to_owned()),
    };
    let read = |(name, title)| Ok((title, Recorded::read(Path::new(folder), name)?));
    let brokers: Vec<(&str, Recorded)> = BROKERS.into_iter().map(read).collect::<Result<_, String>>()?;
    let table = Table::of(&brokers);
    let delays = delays(&brokers);
    println!("{}\n{delays}", table.text);
    if !table.failed.is_empty() {
        return Err(format!("does not hold: {}", table.failed.join("; ")));
    }
    let Some((file, write)) = file else { return Ok(()) };
    if !table.missing.is_empty() {
        return Err(format!("was not run: {}", table.missing.join("; ")));
    }
    let old = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let new = replaced(&old, "contract", &table.text).ok_or(format!("{file} has no place for the table"))?;
    if write {
        let new = replaced(&new, "delays", &delays).ok_or(format!("{file} has no place for the delays"))?;
        return std::fs::write(file, new).map_err(|error| format!("{file}: {error}"));
    }
    if new == old {
        return Ok(());
    }
    Err(format!(
        "the table in {file} is another: write it again with --write {file}"
    ))
}

/// The text with what is between two marks replaced.
fn replaced(text: &str, mark: &str, by: &str) -> Option<String> {
    let (before, rest) = text.split_once(&format!("<!-- {mark} -->\n"))?;
    let (_, after) = rest.split_once(&format!("<!-- /{mark} -->"))?;
    Some(format!("{before}<!-- {mark} -->\n{by}<!-- /{mark} -->{after}"))
}

/// The table as Markdown, and what is wrong with it.
#[derive(Default)]
struct Table {
    text: String,
    failed: Vec<String>,
    missing: Vec<String>,
    reasons: Vec<String>,
}

impl Table {
    fn of(brokers: &[(&str, Recorded)]) -> Self {
        let mut table = Self::default();
        let titles: Vec<&str> = brokers.iter().map(|(title, _)| *title).collect();
        let rule = "---|".repeat(brokers.len());
        let mut text = format!("| | {} |\n|---|{rule}\n", titles.join(" | "));
        for (line, cases) in LINES {
            let cells: Vec<String> = brokers
                .iter()
                .map(|(title, recorded)| table.cell(title, recorded, cases))
                .collect();
            let _ = writeln!(text, "| {line} | {} |", cells.join(" | "));
        }
        for (nth, reason) in table.reasons.iter().enumerate() {
            let _ = writeln!(text, "{}{}. {reason}", if nth == 0 { "\n" } else { "" }, nth + 1);
        }
        table.text = text;
        table
    }

    fn cell(&mut self, title: &str, recorded: &Recorded, cases: &[&str]) -> String {
        let (mut held, mut notes) = (0, Vec::new());
        for case in cases {
            match recorded.outcome(case) {
                Some(Outcome::Passed) => held += 1,
                Some(Outcome::Refused(what)) => notes.push(self.note(format!("{title}: {what}"))),
                Some(Outcome::NotPossible(why)) => notes.push(self.note(format!("{title}: {why}"))),
                Some(Outcome::Failed) => self.failed.push(format!("{case} on {title}")),
                None => self.missing.push(format!("{case} on {title}")),
            }
        }
        notes.dedup();
        let notes = notes.join(", ");
        match held {
            _ if held == cases.len() => "yes".to_owned(),
            _ if notes.is_empty() => "**not shown**".to_owned(),
            0 => format!("no ({notes})"),
            _ => format!("yes, but ({notes})"),
        }
    }

    /// The number of a reason.
    fn note(&mut self, reason: String) -> String {
        let known = self.reasons.iter().position(|other| *other == reason);
        let at = known.unwrap_or_else(|| {
            self.reasons.push(reason);
            self.reasons.len() - 1
        });
        (at + 1).to_string()
    }
}

/// How late retries of each wait were.
fn delays(brokers: &[(&str, Recorded)]) -> String {
    let mut rows: BTreeMap<u64, BTreeMap<&str, u64>> = BTreeMap::new();
    for (title, recorded) in brokers {
        for (wait, late) in &recorded.late {
            let worst = rows.entry(*wait).or_default().entry(title).or_default();
            *worst = (*worst).max(*late);
        }
    }
    let titles: Vec<&str> = brokers.iter().map(|(title, _)| *title).collect();
    let rule = "--:|".repeat(brokers.len() + 1);
    let mut text = format!("| wait | {} |\n|{rule}\n", titles.join(" | "));
    for (wait, late) in rows {
        let cells: Vec<String> = titles
            .iter()
            .map(|title| {
                late.get(title)
                    .map_or_else(String::new, |late| format!("{late} ms"))
            })
            .collect();
        let _ = writeln!(text, "| {wait} ms | {} |", cells.join(" | "));
    }
    text
}
