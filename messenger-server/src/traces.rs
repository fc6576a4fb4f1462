//! Traces: a span for each request, which the engine's spans are parts of, sent to a collector by
//! OpenTelemetry's protocol where the settings name one.
//!
//! What is in a span is listed here and in the engine's write path: never a path, a name, a token or
//! a text of somebody.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use poem::http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::runtime::Handle;
use tracing::field::Empty;
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

/// What the spans go by, here and in the engine, so that they are made only where they are sent.
const TARGET: &str = messenger_core::TRACE_TARGET;
/// Time for a collector to take some spans.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);
/// Time for the last spans to be sent when the server stops.
const END_TIME_MAX: Duration = Duration::from_secs(2);

/// The traces of a process on their way to a collector.
#[derive(Clone, Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Begins to send spans to a collector at an address like `http://127.0.0.1:4318`, from a
    /// runtime. The other `OTEL_` variables mean what OpenTelemetry says: `OTEL_SERVICE_NAME`,
    /// `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS` for example.
    ///
    /// Spans wait in a bounded queue for their sending, and are dropped where it is full: nobody
    /// waits for a collector.
    ///
    /// # Errors
    ///
    /// One of these variables can not be read.
    pub fn start(endpoint: &str, runtime: Handle) -> Result<Self, String> {
        let client = Client {
            hyper: Arc::new(HyperClient::with_default_connector(SEND_TIME_MAX, None)),
            runtime,
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_timeout(SEND_TIME_MAX)
            .build()
            .map_err(|error| error.to_string())?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("messenger-server");
        }
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(exporter)
            .build();
        Ok(Self { provider })
    }

    /// Returns what makes spans of what the server and the engine do, and of nothing else.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("messenger-server"))
            .with_location(false)
            .with_threads(false)
            .with_level(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(Self::targets(Targets::new()))
    }

    /// Lets the spans through a filter.
    pub fn targets(filter: Targets) -> Targets {
        filter.with_target(TARGET, Level::INFO)
    }

    /// Sends what is left, for two seconds at the most. Blocks.
    pub fn end(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(END_TIME_MAX) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// The span of a request, as a part of the caller's if it names one.
pub(crate) fn begin(headers: &HeaderMap, id: &HeaderValue) -> Span {
    let span = tracing::info_span!(
        target: TARGET,
        "request",
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = Empty,
        http.route = Empty,
        http.response.status_code = Empty,
        request.id = id.to_str().unwrap_or_default(),
    );
    if !span.is_disabled() {
        let caller = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
        // Where a host listens to our spans without OpenTelemetry, there is no trace to be part of.
        let _ = span.set_parent(caller);
    }
    span
}

/// Notes how a request was answered.
pub(crate) fn end(span: &Span, method: &str, route: &str, status: StatusCode) {
    // Known only now; a name that is recorded is not looked at any more.
    let name = format!("{method} {route}");
    span.context().span().update_name(name);
    span.record("http.request.method", method);
    span.record("http.route", route);
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// Sends from the runtime, whichever thread asks: the one that collects spans is none of it.
struct Client {
    hyper: Arc<HyperClient>,
    runtime: Handle,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let hyper = Arc::clone(&self.hyper);
        let sent = self
            .runtime
            .spawn(async move { hyper.send_bytes(request).await });
        sent.await?
    }
}
