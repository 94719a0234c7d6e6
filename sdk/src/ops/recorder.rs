//! What the `metrics` facade records into, until Prometheus asks for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::histogram::Buckets;

/// The most series of one name, so that labels made up by whoever sends messages cannot fill the memory.
const MOST_SERIES: usize = 5_000;

static INSTALLED: OnceLock<Option<Registry>> = OnceLock::new();

/// The process's recorder: ours, unless the application has one of its own, whose business the series are then.
pub(crate) fn install() -> Option<&'static Registry> {
    let installed = INSTALLED.get_or_init(|| {
        let registry = Registry::default();
        metrics::set_global_recorder(registry.clone()).ok()?;
        // Before any series: its unit says which buckets a histogram has.
        crate::meter::describe();
        Some(registry)
    });
    installed.as_ref()
}

/// Every series there is, by name and labels.
#[derive(Clone, Default)]
pub(crate) struct Registry(Arc<Mutex<BTreeMap<String, Family>>>);

/// All series of one name.
#[derive(Default)]
pub(super) struct Family {
    pub(super) help: Option<SharedString>,
    pub(super) unit: Option<Unit>,
    pub(super) series: BTreeMap<Labels, Series>,
    refused: AtomicBool,
}

/// Names and values, sorted.
pub(super) type Labels = Vec<(String, String)>;

pub(super) enum Series {
    Counter(Arc<AtomicU64>),
    /// The bits of an `f64`.
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Buckets>),
}

impl Registry {
    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Family>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn describe(&self, key: &KeyName, unit: Option<Unit>, help: SharedString) {
        let mut families = self.lock();
        let family = families.entry(key.as_str().to_owned()).or_default();
        (family.unit, family.help) = (unit, Some(help));
    }

    /// The series of this key, made by `new` where there is none. `None`: there are too many.
    fn series<T>(
        &self,
        key: &Key,
        new: impl FnOnce(&Family) -> Series,
        pick: impl FnOnce(&Series) -> Option<T>,
    ) -> Option<T> {
        let mut labels: Labels = key
            .labels()
            .map(|label| (label.key().to_owned(), label.value().to_owned()))
            .collect();
        labels.sort();
        let mut families = self.lock();
        let family = families.entry(key.name().to_owned()).or_default();
        if !family.series.contains_key(&labels) {
            if family.series.len() >= MOST_SERIES {
                if !family.refused.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        name = key.name(),
                        "over {MOST_SERIES} series of one name: more are not kept"
                    );
                }
                return None;
            }
            let series = new(family);
            family.series.insert(labels.clone(), series);
        }
        pick(family.series.get(&labels)?)
    }
}

impl Recorder for Registry {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.describe(&key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.describe(&key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.describe(&key, unit, description);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let series = self.series(
            key,
            |_| Series::Counter(Arc::default()),
            |series| match series {
                Series::Counter(counter) => Some(counter.clone()),
                _ => None,
            },
        );
        series.map_or_else(Counter::noop, Counter::from_arc)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let series = self.series(
            key,
            |_| Series::Gauge(Arc::default()),
            |series| match series {
                Series::Gauge(gauge) => Some(gauge.clone()),
                _ => None,
            },
        );
        series.map_or_else(Gauge::noop, Gauge::from_arc)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let series = self.series(
            key,
            |family| Series::Histogram(Arc::new(Buckets::new(family.unit))),
            |series| match series {
                Series::Histogram(buckets) => Some(buckets.clone()),
                _ => None,
            },
        );
        series.map_or_else(Histogram::noop, Histogram::from_arc)
    }
}
