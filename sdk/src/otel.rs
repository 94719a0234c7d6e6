//! Sends traces to an OpenTelemetry collector, over OTLP.
//!
//! ```no_run
//! use tracing_subscriber::Layer;
//! use tracing_subscriber::filter::LevelFilter;
//! use tracing_subscriber::layer::SubscriberExt;
//! use tracing_subscriber::util::SubscriberInitExt;
//!
//! # fn main() -> Result<(), postrider::Error> {
//! let traces = postrider::otel::Traces::from_env("shop")?;
//! tracing_subscriber::registry()
//!     .with(tracing_subscriber::fmt::layer().with_filter(LevelFilter::WARN))
//!     .with(traces.layer().with_filter(LevelFilter::INFO))
//!     .init();
//! // App::from_env()?…run().await?;
//! traces.flush()
//! # }
//! ```
//!
//! Where to is said by OpenTelemetry's own variables: `OTEL_EXPORTER_OTLP_ENDPOINT` (`http://localhost:4318` unless set),
//! `OTEL_EXPORTER_OTLP_PROTOCOL` (`http/protobuf` or `http/json`), `OTEL_EXPORTER_OTLP_HEADERS`, and how many by
//! `OTEL_TRACES_SAMPLER`. `https://` is not spoken: send to a collector on this machine or beside it. The spans are at level `INFO` under the target `postrider::message`.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

use crate::contract::{Error, ErrorKind};

/// The way of spans to a collector.
#[derive(Debug, Clone)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// For a service of this name (`OTEL_SERVICE_NAME` goes before it).
    ///
    /// # Errors
    /// A variable is wrong.
    pub fn from_env(service: impl Into<String>) -> Result<Self, Error> {
        let service = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| service.into());
        Self::new(SpanExporter::builder().with_http().build(), service)
    }

    /// For a service of this name, to the collector at `endpoint`, such as `http://localhost:4318`, as JSON.
    ///
    /// # Errors
    /// `endpoint` is no URL.
    pub fn to(service: impl Into<String>, endpoint: &str) -> Result<Self, Error> {
        let builder = SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_protocol(Protocol::HttpJson);
        Self::new(builder.build(), service.into())
    }

    fn new(exporter: Result<SpanExporter, ExporterBuildError>, service: String) -> Result<Self, Error> {
        let failed = |error| Error::new(ErrorKind::Config, "traces cannot be sent").with_source(error);
        let provider = SdkTracerProvider::builder()
            .with_resource(Resource::builder().with_service_name(service).build())
            .with_batch_exporter(exporter.map_err(failed)?)
            .build();
        Ok(Self(provider))
    }

    /// The layer of a `tracing` subscriber that makes OpenTelemetry's spans of tracing's.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> OpenTelemetryLayer<S, Tracer> {
        tracing_opentelemetry::layer().with_tracer(self.0.tracer("postrider"))
    }

    /// Sends what has not been sent: before the program ends.
    ///
    /// # Errors
    /// The collector did not take it.
    pub fn flush(&self) -> Result<(), Error> {
        self.0
            .force_flush()
            .map_err(|error| Error::new(ErrorKind::Unavailable, "spans were not sent").with_source(error))
    }
}
