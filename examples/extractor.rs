//! A parameter type of one's own: `cargo run --example extractor`.

use std::collections::HashMap;
use std::sync::Arc;

use postrider::{StateMap, prelude::*};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "extractor.report.requested")]
struct ReportRequested {
    title: String,
}

/// Whose message it is, by its header `tenant`.
struct Tenant {
    name: String,
    database: String,
}

/// Every tenant's database.
type Databases = Arc<HashMap<&'static str, &'static str>>;

impl Extract for Tenant {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        let name = cx.headers().get_str("tenant");
        let name = name.ok_or_else(|| HandlerError::permanent("the message has no `tenant` header"))?;
        let databases = cx.state::<Databases>().unwrap_or_default();
        let database = databases.get(name);
        // Not permanent: a new tenant may be known by the next attempt.
        let database = database.ok_or_else(|| format!("there is no tenant {name:?} yet"))?;
        Ok(Self {
            name: name.to_owned(),
            database: (*database).to_owned(),
        })
    }

    /// Asked at start-up, so that what is missing is found before the first message.
    fn check(state: &StateMap) -> Result<(), String> {
        let databases = state.get::<Databases>();
        databases
            .map(drop)
            .ok_or_else(|| "`Tenant` needs `.state(databases)`".to_owned())
    }
}

#[listener(
    topic = "extractor.report.requested",
    group = "reports",
    retry(attempts = 2, backoff = "200ms")
)]
async fn report(request: ReportRequested, tenant: Tenant, State(done): State<UnboundedSender<()>>) {
    println!("{:?} for {} from {}", request.title, tenant.name, tenant.database);
    let _ = done.send(());
}

/// A dead-letter topic is a topic like others.
#[listener(topic = "extractor.report.requested.reports.dlq", group = "alarm")]
async fn alarm(request: ReportRequested, dead: DeadLetter, State(done): State<UnboundedSender<()>>) {
    println!(
        "{:?} was given up ({}): {}",
        request.title, dead.reason, dead.error
    );
    let _ = done.send(());
}

#[tokio::main]
async fn main() -> Result<(), postrider::Error> {
    let (done, mut handled) = unbounded_channel::<()>();
    let databases = Databases::new(HashMap::from([("acme", "db-7"), ("globex", "db-2")]));
    let running = App::from_env()?
        .state(databases)
        .state(done)
        .listen(listeners![report, alarm])
        .start()
        .await?;
    running.ready().await?;

    let publisher = running.publisher();
    for tenant in [Some("acme"), Some("globex"), Some("initech"), None] {
        let title = format!("sales of {}", tenant.unwrap_or("nobody"));
        let mut draft = publisher.topic(ReportRequested::TOPIC);
        if let Some(tenant) = tenant {
            draft = draft.header("tenant", tenant);
        }
        draft.send(&ReportRequested { title }).await?;
    }
    for _ in 0..4 {
        handled.recv().await;
    }
    running.shutdown().await
}
