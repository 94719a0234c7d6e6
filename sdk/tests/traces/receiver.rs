//! As much of an OpenTelemetry collector as these tests need: takes spans as JSON.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// A span as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: u64,
    pub(crate) failed: bool,
    /// The traces that it is linked to.
    pub(crate) links: Vec<String>,
    attributes: Vec<(String, String)>,
}

impl Span {
    pub(crate) fn attribute(&self, name: &str) -> &str {
        let found = self.attributes.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    pub(crate) fn topic(&self) -> &str {
        self.attribute("messaging.destination.name")
    }
}

#[derive(Clone, Default)]
pub(crate) struct Receiver(Arc<Mutex<Vec<Span>>>);

impl Receiver {
    /// Listens on a free port, for ever; its address.
    pub(crate) fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let this = Self::default();
        let spans = this.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let spans = spans.clone();
                std::thread::spawn(move || spans.connection(stream.unwrap()));
            }
        });
        (this, address)
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().clone()
    }

    fn connection(&self, stream: TcpStream) {
        let mut answers = stream.try_clone().unwrap();
        let mut reader = BufReader::new(stream);
        loop {
            let (mut path, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                let line = line.trim_end().to_ascii_lowercase();
                if line.is_empty() {
                    break;
                }
                if let Some(rest) = line.strip_prefix("content-length:") {
                    length = rest.trim().parse().unwrap();
                } else if let Some(rest) = line.strip_prefix("post ") {
                    rest.clone_into(&mut path);
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            assert!(path.starts_with("/v1/traces "), "{path}");
            self.take(&serde_json::from_slice(&body).unwrap());
            answers
                .write_all(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
                )
                .unwrap();
        }
    }

    fn take(&self, body: &Value) {
        let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let value = |value: &Value| {
            let Some((_, plain)) = value.as_object().and_then(|object| object.iter().next()) else {
                return String::new();
            };
            plain.as_str().map_or_else(|| plain.to_string(), str::to_owned)
        };
        for resource in list(body, "resourceSpans") {
            for scope in list(&resource, "scopeSpans") {
                for span in list(&scope, "spans") {
                    let attributes = list(&span, "attributes");
                    let read = Span {
                        trace: text(&span, "traceId"),
                        id: text(&span, "spanId"),
                        parent: text(&span, "parentSpanId"),
                        name: text(&span, "name"),
                        kind: span["kind"].as_u64().unwrap_or(0),
                        failed: span["status"]["code"].as_u64() == Some(2),
                        links: list(&span, "links")
                            .iter()
                            .map(|link| text(link, "traceId"))
                            .collect(),
                        attributes: attributes
                            .iter()
                            .map(|one| (text(one, "key"), value(&one["value"])))
                            .collect(),
                    };
                    self.0.lock().unwrap().push(read);
                }
            }
        }
    }
}
