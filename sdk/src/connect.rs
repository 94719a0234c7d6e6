//! A URL becomes an adapter. The only file that knows which adapters are compiled in.

use std::env::consts::EXE_SUFFIX;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use crate::config::variable;
use crate::contract::{Broker, BrokerUrl, Client, Error, ErrorKind};

/// The variable that names the broker.
pub(crate) const BROKER_URL: &str = "BROKER_URL";

/// An adapter that could be compiled in.
struct Adapter {
    /// Also the system that its capabilities name.
    feature: &'static str,
    schemes: &'static [&'static str],
    /// Its usual local address; `None`: not compiled in.
    local: Option<&'static str>,
}

macro_rules! adapters {
    ($($feature:literal $krate:ident [$($scheme:literal)*];)*) => {
        /// Every adapter there is, compiled in or not, so that an error can name the feature that is missing.
        const ADAPTERS: &[Adapter] = &[$(Adapter {
            feature: $feature,
            schemes: &[$($scheme),*],
            #[cfg(feature = $feature)]
            local: Some($krate::LOCAL),
            #[cfg(not(feature = $feature))]
            local: None,
        }),*];

        async fn open(feature: &str, url: &BrokerUrl, client: Client) -> Result<Arc<dyn Broker>, Error> {
            match feature {
                $(#[cfg(feature = $feature)] $feature => $krate::connect(url, client).await,)*
                _ => Err(unknown_scheme(&url.scheme)),
            }
        }
    };
}

adapters! {
    "memory" postrider_memory ["memory"];
    "kafka" postrider_kafka ["kafka" "kafkas"];
    "rabbitmq" postrider_rabbitmq ["amqp" "amqps"];
    "redis" postrider_redis ["redis" "rediss" "redis+pubsub" "rediss+pubsub"];
}

/// Connects to the broker at `url`.
pub(crate) async fn connect(url: &str, client: Client) -> Result<Arc<dyn Broker>, Error> {
    let (url, adapter) = check(url)?;
    open(adapter.feature, &url, client).await
}

/// Whether a URL is well-formed and names an adapter that is compiled in.
pub(crate) fn check_url(url: &str) -> Result<(), Error> {
    check(url).map(drop)
}

/// Whether this is the broker within a process, which nobody else shares.
pub(crate) fn is_memory(url: &str) -> bool {
    url.parse().is_ok_and(|url: BrokerUrl| url.scheme == "memory")
}

/// What the adapter for this URL is called in metrics, which is known before it connects.
pub(crate) fn system(url: &str) -> Option<&'static str> {
    let (_, adapter) = check(url).ok()?;
    Some(adapter.feature)
}

fn check(url: &str) -> Result<(BrokerUrl, &'static Adapter), Error> {
    let url: BrokerUrl = url.parse()?;
    let adapter = ADAPTERS
        .iter()
        .find(|adapter| adapter.schemes.contains(&url.scheme.as_str()));
    match adapter {
        Some(adapter) if adapter.local.is_some() => Ok((url, adapter)),
        Some(Adapter { feature, .. }) => {
            let text = format!(
                "{}:// needs the cargo feature `{feature}`, which is off",
                url.scheme
            );
            Err(Error::new(ErrorKind::Config, text))
        }
        None => Err(unknown_scheme(&url.scheme)),
    }
}

fn unknown_scheme(scheme: &str) -> Error {
    let known: Vec<String> = compiled_in()
        .flat_map(|adapter| adapter.schemes)
        .map(|scheme| format!("{scheme}://"))
        .collect();
    let known = if known.is_empty() {
        "nothing: turn on a broker's cargo feature".to_owned()
    } else {
        known.join(" ")
    };
    Error::new(
        ErrorKind::Config,
        format!("the URL scheme `{scheme}` is unknown; compiled in: {known}"),
    )
}

fn compiled_in() -> impl Iterator<Item = &'static Adapter> {
    ADAPTERS.iter().filter(|adapter| adapter.local.is_some())
}

/// The broker's URL from `BROKER_URL`, or the only one it can be.
///
/// # Errors
/// It is not set, and several networked adapters are compiled in: memory is never chosen silently beside one.
pub(crate) fn url_from_env() -> Result<String, Error> {
    match variable(BROKER_URL)? {
        Some(url) => Ok(url),
        None => choose(&compiled_in().collect::<Vec<_>>()),
    }
}

fn choose(compiled_in: &[&Adapter]) -> Result<String, Error> {
    let networked: Vec<&&Adapter> = compiled_in
        .iter()
        .filter(|adapter| adapter.feature != "memory")
        .collect();
    match networked[..] {
        [] if compiled_in.is_empty() => Err(Error::new(
            ErrorKind::Config,
            "no broker is compiled in: turn on a cargo feature such as `memory`",
        )),
        [] => Ok("memory://".to_owned()),
        [only] => {
            let local = only.local.unwrap_or_default();
            tracing::warn!(
                url = local,
                "{BROKER_URL} is not set: using the local address of the only networked adapter"
            );
            Ok(local.to_owned())
        }
        _ => {
            let each =
                |adapter: &&&Adapter| format!("{} ({})", adapter.feature, adapter.local.unwrap_or_default());
            let list = networked.iter().map(each).collect::<Vec<_>>().join(", ");
            let text =
                format!("{BROKER_URL} is not set and several brokers are compiled in: {list}; set it to one");
            Err(Error::new(ErrorKind::Config, text))
        }
    }
}

/// The application's name where nobody gave one: the program's.
pub(crate) fn default_application() -> String {
    let program = std::env::current_exe().ok();
    program
        .and_then(|path| name_of(&path))
        .unwrap_or_else(|| "app".to_owned())
}

/// A program's name as that of a group. All of it counts: `shop.orders` and `shop.billing` are two.
fn name_of(program: &Path) -> Option<String> {
    let name = program.file_name()?.to_string_lossy();
    // What Linux adds once the file has been replaced, as a deployment does under a running program.
    let name = name.strip_suffix(" (deleted)").unwrap_or(&name);
    let name = name.strip_suffix(EXE_SUFFIX).unwrap_or(name);
    let clean = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' || c == '-' {
            c
        } else {
            '_'
        }
    };
    Some(name.chars().take(100).map(clean).collect())
}

/// This process among the application's instances.
pub(crate) fn client(application: &str) -> Client {
    let instance = format!("{application}-{}", Uuid::now_v7().simple());
    Client {
        application: application.into(),
        instance: instance.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Adapter = Adapter {
        feature: "memory",
        schemes: &["memory"],
        local: Some("memory://"),
    };
    const ONE: Adapter = Adapter {
        feature: "one",
        schemes: &["one"],
        local: Some("one://here"),
    };
    const TWO: Adapter = Adapter {
        feature: "two",
        schemes: &["two"],
        local: Some("two://here"),
    };

    #[test]
    fn memory_is_never_chosen_beside_a_networked_adapter() {
        assert_eq!(choose(&[&MEMORY]).unwrap(), "memory://");
        assert_eq!(choose(&[&MEMORY, &ONE]).unwrap(), "one://here");
        assert_eq!(choose(&[&ONE]).unwrap(), "one://here");
        let error = choose(&[&MEMORY, &ONE, &TWO]).unwrap_err().to_string();
        assert!(error.contains("one (one://here), two (two://here)"), "{error}");
        assert!(choose(&[]).is_err());
    }

    #[test]
    fn a_program_keeps_its_name_when_its_file_is_replaced() {
        let name = |file: &str| name_of(&Path::new("/srv/bin").join(file)).unwrap();
        let file = format!("orders{EXE_SUFFIX}");
        assert_eq!(name(&file), "orders");
        assert_eq!(name(&format!("{file} (deleted)")), "orders");
        assert_eq!(
            (&*name("shop.orders"), &*name("shop.billing")),
            ("shop_orders", "shop_billing")
        );
        assert_eq!(name("commandes-été"), "commandes-_t_");
        assert_eq!(name_of(Path::new("/")), None);
    }

    #[test]
    fn unknown_schemes_list_the_known() {
        let error = check_url("carrier-pigeon://h").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            error.to_string().contains("`carrier-pigeon` is unknown"),
            "{error}"
        );
    }
}
