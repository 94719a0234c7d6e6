//! The series as Prometheus reads them: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
//!
//! Names follow OpenTelemetry's mapping: dots become underscores, a counter ends in `_total`, a unit is part of the name.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use metrics::Unit;

use super::recorder::{Family, Labels, Registry, Series};

/// The media type of what [`Registry::render`] writes.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Registry {
    /// Every series.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in self.lock().iter() {
            // Writing to a string does not fail.
            let _ = write_family(&mut text, name, family);
        }
        text
    }
}

fn write_family(text: &mut String, name: &str, family: &Family) -> std::fmt::Result {
    let Some(first) = family.series.values().next() else {
        return Ok(());
    };
    let (kind, suffix) = match first {
        Series::Counter(_) => ("counter", "_total"),
        Series::Gauge(_) => ("gauge", ""),
        Series::Histogram(_) => ("histogram", ""),
    };
    let unit = match family.unit {
        Some(Unit::Seconds) => "_seconds",
        Some(Unit::Bytes) => "_bytes",
        _ => "",
    };
    let name = format!("{}{unit}{suffix}", legal(name));
    if let Some(help) = &family.help {
        writeln!(
            text,
            "# HELP {name} {}",
            help.replace('\\', "\\\\").replace('\n', "\\n")
        )?;
    }
    writeln!(text, "# TYPE {name} {kind}")?;
    for (labels, series) in &family.series {
        match series {
            Series::Counter(count) => {
                writeln!(
                    text,
                    "{name}{} {}",
                    set(labels, None),
                    count.load(Ordering::Relaxed)
                )?;
            }
            Series::Gauge(bits) => {
                let value = f64::from_bits(bits.load(Ordering::Relaxed));
                writeln!(text, "{name}{} {value}", set(labels, None))?;
            }
            Series::Histogram(buckets) => {
                let held = buckets.held();
                for (bound, count) in held.up_to {
                    writeln!(
                        text,
                        "{name}_bucket{} {count}",
                        set(labels, Some(&bound.to_string()))
                    )?;
                }
                writeln!(text, "{name}_bucket{} {}", set(labels, Some("+Inf")), held.count)?;
                writeln!(text, "{name}_sum{} {}", set(labels, None), held.sum)?;
                writeln!(text, "{name}_count{} {}", set(labels, None), held.count)?;
            }
        }
    }
    Ok(())
}

/// Labels in braces; nothing where there are none.
fn set(labels: &Labels, bound: Option<&str>) -> String {
    let escaped = |value: &str| {
        value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
    };
    let mut parts: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{}=\"{}\"", legal(name), escaped(value)))
        .collect();
    parts.extend(bound.map(|bound| format!("le=\"{bound}\"")));
    if parts.is_empty() {
        String::new()
    } else {
        format!("{{{}}}", parts.join(","))
    }
}

fn legal(name: &str) -> String {
    let legal = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '_'
        }
    };
    name.chars().map(legal).collect()
}

#[cfg(test)]
mod tests {
    use metrics::{KeyName, Label, Metadata, Recorder};

    use super::*;

    #[test]
    fn series_are_written_as_prometheus_reads_them() {
        let registry = Registry::default();
        registry.describe_histogram(KeyName::from("a.took"), Some(Unit::Seconds), "How\nlong.".into());
        let metadata = Metadata::new("", metrics::Level::INFO, None);
        let labels = vec![Label::new("b.c", "say \"x\"\n"), Label::new("a", "1")];
        let key = metrics::Key::from_parts("a.b", labels);
        registry.register_counter(&key, &metadata).increment(2);
        registry.register_counter(&key, &metadata).increment(1);
        registry
            .register_gauge(&metrics::Key::from_name("g"), &metadata)
            .set(f64::NAN);
        registry
            .register_histogram(&metrics::Key::from_name("a.took"), &metadata)
            .record(0.002);
        let text = registry.render();
        for line in [
            "# TYPE a_b_total counter",
            "a_b_total{a=\"1\",b_c=\"say \\\"x\\\"\\n\"} 3",
            "g NaN",
            "# HELP a_took_seconds How\\nlong.",
            "a_took_seconds_bucket{le=\"0.001\"} 0",
            "a_took_seconds_bucket{le=\"0.005\"} 1",
            "a_took_seconds_bucket{le=\"+Inf\"} 1",
            "a_took_seconds_sum 0.002",
            "a_took_seconds_count 1",
        ] {
            assert!(text.lines().any(|written| written == line), "{line}\n{text}");
        }
    }

    #[test]
    fn series_of_one_name_are_bounded() {
        let registry = Registry::default();
        let metadata = Metadata::new("", metrics::Level::INFO, None);
        for n in 0..6_000 {
            let key = metrics::Key::from_parts("hostile", vec![Label::new("from", n.to_string())]);
            registry.register_counter(&key, &metadata).increment(1);
        }
        assert_eq!(registry.lock()["hostile"].series.len(), 5_000);
    }
}
