//! Operational values from the environment and from `postrider.toml`, without a rebuild.

use std::collections::BTreeMap;
use std::env::VarError;
use std::ffi::OsString;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use crate::contract::{Backoff, Error, ErrorKind, Topology, parse_duration};
use crate::listener::{Breaker, Dedup, Rate, Settings};

/// The file that is read from the working directory, where it exists.
const FILE: &str = "postrider.toml";
/// The variable that names another file.
const FILE_VARIABLE: &str = "POSTRIDER_CONFIG";
/// What every variable begins with.
const PREFIX: &str = "POSTRIDER__";

/// The keys of a listener's section.
const LISTENER_KEYS: &[&str] = &[
    "breaker_failures",
    "breaker_pause",
    "concurrency",
    "dead_letter",
    "dedup_window",
    "enabled",
    "group",
    "max_size",
    "prefetch",
    "rate",
    "retry_attempts",
    "retry_backoff",
    "retry_max_age",
    "timeout",
];
/// The keys of the section `app`.
const APP_KEYS: &[&str] = &["dedup_url", "drain_deadline", "metrics", "name", "topology"];
/// The keys of a section `broker.<name>`.
const BROKER_KEYS: &[&str] = &["url"];

/// What configuration says, each value with where it stands. The environment goes before the file.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// Section (`app`, `broker.<name>`, a listener's name) -> key -> value.
    sections: BTreeMap<String, BTreeMap<String, Entry>>,
    /// Variables that begin like one of ours, and are none.
    others: Vec<String>,
}

#[derive(Debug, Clone)]
struct Entry {
    value: String,
    /// The variable, or the key in the file.
    place: String,
}

/// A listener's values after configuration.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub(crate) settings: Settings,
    /// These are owned, since configuration may change them.
    pub(crate) group: Option<String>,
    pub(crate) dead_letter: Option<String>,
}

impl Config {
    /// Reads the file and the environment.
    ///
    /// # Errors
    /// The file cannot be read, or is not TOML of the expected form.
    pub(crate) fn load() -> Result<Self, Error> {
        let mut this = Self::default();
        match std::env::var_os(FILE_VARIABLE) {
            Some(path) if path.is_empty() => {
                return Err(config(format!(
                    "{FILE_VARIABLE} is empty: it names the file to read"
                )));
            }
            Some(path) => this.read_file(Path::new(&path))?,
            None if Path::new(FILE).exists() => this.read_file(Path::new(FILE))?,
            None => {}
        }
        this.read_variables(std::env::vars_os())?;
        Ok(this)
    }

    fn read_file(&mut self, path: &Path) -> Result<(), Error> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| config(format!("{shown} cannot be read")).with_source(error))?;
        self.read_text(&text, &shown)
    }

    fn read_text(&mut self, text: &str, shown: &impl Display) -> Result<(), Error> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            // Its own text shows the line, which may hold a password.
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.unwrap_or_default().matches('\n').count() + 1;
            config(format!("{shown} is not TOML, line {line}: {}", error.message()))
        })?;
        for (section, value) in table {
            let toml::Value::Table(keys) = value else {
                return Err(config(format!(
                    "{shown}: `{section}` is no section: write [{section}] and keys below it"
                )));
            };
            for (key, value) in keys {
                match value {
                    toml::Value::Table(keys) if section == "broker" => {
                        for (inner, value) in keys {
                            self.set(
                                &format!("{section}.{key}"),
                                &inner,
                                plain(&value),
                                format!("{shown}: {section}.{key}.{inner}"),
                            );
                        }
                    }
                    value => self.set(&section, &key, plain(&value), format!("{shown}: {section}.{key}")),
                }
            }
        }
        Ok(())
    }

    fn read_variables<T: Into<OsString>>(
        &mut self,
        variables: impl Iterator<Item = (T, T)>,
    ) -> Result<(), Error> {
        for (name, value) in variables {
            let name = name.into().to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix(PREFIX) else {
                if name.starts_with("POSTRIDER_") {
                    self.others.push(name);
                }
                continue;
            };
            let not_text = |_| config(format!("the value of {name} is not UTF-8"));
            let value = value.into().into_string().map_err(not_text)?;
            let parts: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
            let (section, key) = match &parts[..] {
                [section, key] => (section.clone(), key),
                [broker, name, key] if broker == "broker" => (format!("broker.{name}"), key),
                _ => {
                    let forms = "POSTRIDER__<LISTENER>__<KEY>, POSTRIDER__APP__<KEY> or POSTRIDER__BROKER__<NAME>__URL";
                    return Err(config(format!("{name} has not the form {forms}")));
                }
            };
            self.set(&section, key, value, name);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn of_variables(variables: impl Iterator<Item = (String, String)>) -> Self {
        let mut this = Self::default();
        assert!(this.read_variables(variables).is_ok());
        this
    }

    fn set(&mut self, section: &str, key: &str, value: String, place: String) {
        let entry = Entry { value, place };
        self.sections
            .entry(section.to_ascii_lowercase())
            .or_default()
            .insert(key.to_owned(), entry);
    }

    /// Everything that is named but does not exist.
    pub(crate) fn unknown(&self, listeners: &[&str]) -> Vec<String> {
        let mut problems = self.with_single_underscores(listeners);
        for (section, keys) in &self.sections {
            let known = if section == "app" {
                APP_KEYS
            } else if section.starts_with("broker.") {
                BROKER_KEYS
            } else if listeners.iter().any(|name| name.eq_ignore_ascii_case(section)) {
                LISTENER_KEYS
            } else {
                let places: Vec<_> = keys.values().map(|entry| entry.place.as_str()).collect();
                let place = places.join(", ");
                problems.push(if section == "broker" {
                    format!("{place}: the main broker is the one in BROKER_URL; a named one is [broker.<name>], with its `url`")
                } else {
                    let listeners = listeners.join(", ");
                    format!("{place}: there is no listener `{section}`; listeners: {listeners}")
                });
                continue;
            };
            for (key, entry) in keys.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
                problems.push(format!(
                    "{}: `{key}` is unknown; known keys: {}",
                    entry.place,
                    known.join(", ")
                ));
            }
        }
        problems
    }

    /// Variables that would be read if they were written with two underscores.
    fn with_single_underscores(&self, listeners: &[&str]) -> Vec<String> {
        let of_listeners = listeners.iter().map(|name| (*name, LISTENER_KEYS));
        let sections = of_listeners.chain([("app", APP_KEYS)]);
        let right = sections.flat_map(|(section, keys)| keys.iter().map(move |key| [section, key]));
        let right: Vec<String> = right
            .map(|[section, key]| format!("{PREFIX}{section}__{key}").to_ascii_uppercase())
            .collect();
        let single = |name: &str| name.replace("__", "_").to_ascii_uppercase();
        let meant = |other: &String| {
            let one = single(other);
            let broker = one.strip_prefix("POSTRIDER_BROKER_");
            if let Some(broker) = broker.and_then(|rest| rest.strip_suffix("_URL")) {
                return Some(format!(
                    "{other} is not read: write {PREFIX}BROKER__{broker}__URL"
                ));
            }
            let right = right.iter().find(|right| single(right) == one)?;
            Some(format!("{other} is not read: write {right}"))
        };
        self.others.iter().filter_map(meant).collect()
    }

    /// The application's name.
    pub(crate) fn name(&self) -> Option<String> {
        Some(self.get("app", "name")?.value.clone())
    }

    /// Where marks of handled messages are kept.
    pub(crate) fn dedup_url(&self) -> Option<String> {
        Some(self.get("app", "dedup_url")?.value.clone())
    }

    /// How long a drain may take.
    pub(crate) fn drain_deadline(&self, problems: &mut Vec<String>) -> Option<Duration> {
        self.read("app", "drain_deadline", DURATION, parse_duration, problems)
    }

    /// Whether to count and time through the `metrics` facade.
    pub(crate) fn metrics(&self, problems: &mut Vec<String>) -> Option<bool> {
        self.read(
            "app",
            "metrics",
            "true or false",
            |text| text.parse().ok(),
            problems,
        )
    }

    /// Who makes topics and queues.
    pub(crate) fn topology(&self, problems: &mut Vec<String>) -> Option<Topology> {
        let parse = |text: &str| match text {
            "declare" => Some(Topology::Declare),
            "verify" => Some(Topology::Verify),
            _ => None,
        };
        self.read("app", "topology", "declare or verify", parse, problems)
    }

    /// The URLs of named brokers.
    pub(crate) fn brokers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sections.iter().filter_map(|(section, keys)| {
            Some((section.strip_prefix("broker.")?, keys.get("url")?.value.trim()))
        })
    }

    /// A listener's settings with what configuration changes.
    pub(crate) fn resolve(&self, settings: &Settings, problems: &mut Vec<String>) -> Resolved {
        let name = settings.name.to_ascii_lowercase();
        let text = |key: &str| self.get(&name, key).map(|entry| entry.value.clone());
        let mut settings = settings.clone();
        macro_rules! read {
            ($key:literal, $allowed:expr, $parse:expr => $field:expr) => {
                if let Some(value) = self.read(&name, $key, $allowed, $parse, problems) {
                    $field = value;
                }
            };
        }
        read!("concurrency", "a whole number from 1", positive => settings.concurrency);
        read!("prefetch", "a whole number from 1", |text| positive(text).map(Some) => settings.prefetch);
        read!("retry_attempts", "a whole number from 1", positive => settings.retry.attempts);
        read!("retry_backoff", BACKOFF, backoff => settings.retry.backoff);
        read!("retry_max_age", DURATION, |text| duration(text).map(Some) => settings.retry.max_age);
        if ["breaker_failures", "breaker_pause"]
            .iter()
            .any(|key| self.get(&name, key).is_some())
        {
            let breaker = settings.breaker.get_or_insert(Breaker::DEFAULT);
            read!("breaker_failures", "a whole number from 1", positive => breaker.failures);
            read!("breaker_pause", DURATION, duration => breaker.pause);
        }
        if self.get(&name, "dedup_window").is_some() {
            let by_id = Dedup {
                window: Duration::ZERO,
                key: None,
            };
            let dedup = settings.dedup.get_or_insert(by_id);
            read!("dedup_window", DURATION, duration => dedup.window);
        }
        read!("timeout", DURATION, |text| duration(text).map(Some) => settings.timeout);
        read!("rate", "a rate such as 500/s, 100/m, 10/h", |text| rate(text).map(Some) => settings.rate);
        read!("max_size", "a size above zero, such as 65536 or 64KiB", |text| size(text).map(Some) => settings.max_size);
        read!("enabled", "true or false", |text| text.parse().ok() => settings.enabled);
        Resolved {
            group: text("group").or_else(|| settings.group.map(str::to_owned)),
            dead_letter: text("dead_letter").or_else(|| settings.dead_letter.map(str::to_owned)),
            settings,
        }
    }

    fn get(&self, section: &str, key: &str) -> Option<&Entry> {
        self.sections.get(section)?.get(key)
    }

    fn read<T>(
        &self,
        section: &str,
        key: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
        problems: &mut Vec<String>,
    ) -> Option<T> {
        let Entry { value, place } = self.get(section, key)?;
        let parsed = parse(value.trim());
        if parsed.is_none() {
            problems.push(format!("{place} is {value:?}; allowed is {allowed}"));
        }
        parsed
    }
}

const BACKOFF: &str = "a range such as 200ms..30s or linear 1s..30s, or a fixed wait such as 5s";
const DURATION: &str = "a duration above zero, such as 500ms, 10s, 5m";

fn duration(text: &str) -> Option<Duration> {
    parse_duration(text).filter(|duration| !duration.is_zero())
}

fn positive(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&number| number > 0)
}

/// As `#[listener]` reads it.
fn size(text: &str) -> Option<usize> {
    let digits = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    let count: usize = count.parse().ok()?;
    count.checked_mul(unit).filter(|&size| size > 0)
}

/// As `#[listener]` reads it.
fn backoff(text: &str) -> Option<Backoff> {
    let (word, waits) = text.split_once(' ').unwrap_or(("", text));
    let (make, waits): (fn(Duration, Duration) -> Backoff, &str) = match word {
        "linear" => (Backoff::linear, waits),
        "exponential" | "fixed" => (Backoff::new, waits),
        _ => (Backoff::new, text),
    };
    let waits = waits.trim();
    let (base, cap) = match (word, waits.split_once("..")) {
        ("fixed", Some(_)) | ("linear" | "exponential", None) => return None,
        (_, None) => (waits, waits),
        (_, Some(range)) => range,
    };
    let backoff = make(duration(base.trim())?, duration(cap.trim())?);
    (backoff.base <= backoff.cap).then_some(backoff)
}

fn rate(text: &str) -> Option<Rate> {
    let (count, unit) = text.split_once('/')?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    Some(Rate {
        count: positive(count)?,
        per: Duration::from_secs(seconds),
    })
}

/// A value as the environment would write it.
fn plain(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// An environment variable without blanks around it, unless nothing is left.
///
/// # Errors
/// It is not UTF-8.
pub(crate) fn variable(name: &str) -> Result<Option<String>, Error> {
    match std::env::var(name) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(config(format!("{name} is not UTF-8"))),
    }
}

fn config(text: String) -> Error {
    Error::new(ErrorKind::Config, text)
}

#[cfg(test)]
mod tests;
