//! What is answered to which request.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::listeners::{Rates, state};
use super::{install, render};
use crate::app::Overview;
use crate::contract::{Bytes, Error, Status};

/// Brokers are not asked for their depths more often, however often `/listeners` is.
const DEPTHS_AGE: Duration = Duration::from_secs(1);
/// How long `/listeners` waits for each: whoever looks at a broker that is down wants the rest at once.
const DEPTHS_PATIENCE: Duration = Duration::from_secs(2);
const INDEX: &str = "postrider\n\n/metrics\n/health/live\n/health/ready\n/listeners\n\
                     POST /listeners/<name>/pause\nPOST /listeners/<name>/resume\n";

/// What the endpoint answers from.
pub(super) struct Ops {
    /// Nothing during start-up.
    started: Arc<OnceLock<Arc<Overview>>>,
    rates: Rates,
    token: Option<String>,
    drain: CancellationToken,
    /// What they told last, and when.
    depths: Mutex<Option<(Instant, Depths)>>,
}

/// What brokers answered, a listener each.
type Depths = Vec<Result<Status, Error>>;

/// An answer.
pub(super) type Answer = Response<Full<Bytes>>;

impl Ops {
    pub(super) fn new(
        started: Arc<OnceLock<Arc<Overview>>>,
        token: Option<String>,
        drain: CancellationToken,
    ) -> Self {
        Self {
            started,
            rates: Rates::default(),
            token,
            drain,
            depths: Mutex::default(),
        }
    }

    /// Looks again and again at what the listeners have done, to tell rates.
    pub(super) async fn watch(&self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Some(overview) = self.started.get() {
                self.rates.sample(&overview.status());
            }
        }
    }

    pub(super) async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Answer {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let reads = matches!(*method, Method::GET | Method::HEAD);
        match parts[..] {
            ["listeners", name, action @ ("pause" | "resume")] => {
                if *method != Method::POST {
                    return not_allowed("POST");
                }
                self.change(name, action == "pause", headers)
            }
            ["" | "metrics" | "listeners"] | ["health", "live" | "ready"] if !reads => {
                not_allowed("GET, HEAD")
            }
            [""] => text(StatusCode::OK, INDEX.to_owned()),
            ["metrics"] => metrics(),
            ["health", "live"] => told(StatusCode::OK, &json!({ "live": true })),
            ["health", "ready"] => self.ready(),
            ["listeners"] => self.listeners().await,
            _ => text(StatusCode::NOT_FOUND, format!("there is no such page\n\n{INDEX}")),
        }
    }

    /// Whether every listener receives; otherwise which does not, and why.
    fn ready(&self) -> Answer {
        let Some(overview) = self.started.get() else {
            return starting();
        };
        let mut reasons = Vec::new();
        if self.drain.is_cancelled() {
            reasons.push(json!({ "state": "draining" }));
        }
        for listener in overview.status() {
            let (word, reason) = state(&listener.state);
            if word != "ready" {
                reasons.push(json!({
                    "listener": listener.name, "topic": listener.topic, "group": listener.group,
                    "state": word, "reason": reason,
                }));
            }
        }
        let ready = reasons.is_empty();
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        told(status, &json!({ "ready": ready, "reasons": reasons }))
    }

    async fn listeners(&self) -> Answer {
        let Some(overview) = self.started.get() else {
            return starting();
        };
        let mut held = self.depths.lock().await;
        let depths = match held.take() {
            Some((at, depths)) if at.elapsed() <= DEPTHS_AGE => (at, depths),
            _ => {
                let depths = overview.depths(DEPTHS_PATIENCE).await;
                (Instant::now(), depths)
            }
        };
        let (_, depths) = held.insert(depths);
        let status = overview.status();
        let tell = |(place, (status, depths))| self.rates.tell(place, status, depths);
        let listeners: Vec<Value> = status.iter().zip(&*depths).enumerate().map(tell).collect();
        told(StatusCode::OK, &json!({ "listeners": listeners }))
    }

    fn change(&self, name: &str, pause: bool, headers: &HeaderMap) -> Answer {
        let Some(token) = &self.token else {
            let text = "set POSTRIDER_OPS_TOKEN, and send it as `Authorization: Bearer …`\n";
            return self::text(StatusCode::FORBIDDEN, text.to_owned());
        };
        let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = given.and_then(|given| given.strip_prefix(b"Bearer "));
        if !given.is_some_and(|given| is_same(given, token.as_bytes())) {
            return text(
                StatusCode::UNAUTHORIZED,
                "the token is missing or wrong\n".to_owned(),
            );
        }
        let Some(overview) = self.started.get() else {
            return starting();
        };
        if !overview.pause(name, pause) {
            let names: Vec<_> = overview
                .status()
                .into_iter()
                .map(|listener| listener.name)
                .collect();
            let text = format!(
                "there is no listener of this name; listeners: {}\n",
                names.join(", ")
            );
            return self::text(StatusCode::NOT_FOUND, text);
        }
        tracing::info!(listener = name, pause, "changed at the operations endpoint");
        told(StatusCode::OK, &json!({ "listener": name, "paused": pause }))
    }
}

/// Brokers are being connected to, and what is missing on them is made.
fn starting() -> Answer {
    let reasons = json!([{ "state": "starting" }]);
    told(
        StatusCode::SERVICE_UNAVAILABLE,
        &json!({ "ready": false, "reasons": reasons }),
    )
}

fn metrics() -> Answer {
    match install() {
        Some(registry) => answer(StatusCode::OK, render::CONTENT_TYPE, registry.render()),
        None => text(
            StatusCode::NOT_FOUND,
            "the application has a metrics recorder of its own: the series are there\n".to_owned(),
        ),
    }
}

/// Takes as long for a token that is nearly right as for one that is all wrong.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let differences = given.iter().zip(token).fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == token.len() && std::hint::black_box(differences) == 0
}

fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("allowed: {allowed}\n"));
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn told(status: StatusCode, value: &Value) -> Answer {
    answer(status, "application/json", format!("{value:#}\n"))
}

fn text(status: StatusCode, text: String) -> Answer {
    answer(status, "text/plain; charset=utf-8", text)
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
