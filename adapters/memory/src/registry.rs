//! The brokers of this process, by name.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use postrider_contract::{Broker, BrokerUrl, Client, Error};

use crate::broker::MemoryBroker;
use crate::settings::{ConnectionSettings, Limits, Settings, config};
use crate::state::Hub;

static NAMED: LazyLock<Mutex<HashMap<String, Weak<Hub>>>> = LazyLock::new(Mutex::default);

/// A broker of one's own that has no name: what tests connect several instances to.
///
/// ```
/// # use postrider_contract::Client;
/// let memory = postrider_memory::Memory::new(100, 0);
/// let client = |n: &str| Client { application: "shop".into(), instance: n.into() };
/// let (one, two) = (memory.connect(client("1")), memory.connect(client("2")));
/// # let _ = (one, two);
/// ```
#[derive(Clone)]
pub struct Memory(Arc<Hub>);

impl Memory {
    /// A broker in which at most `capacity` messages wait for a group, and `retain` messages of each topic are kept for
    /// groups that start at the earliest.
    pub fn new(capacity: usize, retain: usize) -> Self {
        let capacity = capacity.max(1);
        Self(Arc::new(Hub::new(Limits { capacity, retain })))
    }

    /// One more instance.
    pub fn connect(&self, client: Client) -> Arc<dyn Broker> {
        let settings = ConnectionSettings::default();
        Arc::new(MemoryBroker::new(self.0.clone(), settings, client))
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self(Arc::new(Hub::new(Limits::default())))
    }
}

pub(crate) fn connect(url: &BrokerUrl, client: Client) -> Result<Arc<dyn Broker>, Error> {
    let settings = Settings::read(url)?;
    let hub = named(&settings)?;
    Ok(Arc::new(MemoryBroker::new(hub, settings.connection, client)))
}

fn named(settings: &Settings) -> Result<Arc<Hub>, Error> {
    let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
    named.retain(|_, hub| hub.strong_count() > 0);
    if let Some(hub) = named.get(&settings.name).and_then(Weak::upgrade) {
        let differs = |asked: Option<usize>, is: usize| asked.is_some_and(|asked| asked != is);
        for (option, asked, is) in [
            ("capacity", settings.capacity, hub.limits.capacity),
            ("retain", settings.retain, hub.limits.retain),
        ] {
            if differs(asked, is) {
                return Err(config(format!(
                    "memory://{} is already open with {option}={is}: state the same value or none",
                    settings.name
                )));
            }
        }
        return Ok(hub);
    }
    let standard = Limits::default();
    let hub = Arc::new(Hub::new(Limits {
        capacity: settings.capacity.unwrap_or(standard.capacity),
        retain: settings.retain.unwrap_or(standard.retain),
    }));
    named.insert(settings.name.clone(), Arc::downgrade(&hub));
    Ok(hub)
}
