//! Spans to an OpenTelemetry collector, OTLP over HTTP, when `OTEL_EXPORTER_OTLP_ENDPOINT` (or its `_TRACES_` form) names
//! one. All settings are OpenTelemetry's own environment variables: sampler, headers, time-out, service name.

use std::env;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use super::Traceparent;

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// A pod that goes has its grace period; what a collector that is away would take of it is bounded.
const FLUSH: Duration = Duration::from_secs(3);

/// The layer that exports; None when no collector is named.
///
/// # Errors
/// When a collector is named in a way that can't be used.
pub fn layer<S>() -> anyhow::Result<Option<impl Layer<S>>>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let variables = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    if variables.into_iter().all(|name| env::var_os(name).is_none_or(|value| value.is_empty())) {
        return Ok(None);
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .build()
        .with_context(|| format!("{}: write http://host:4318", variables.join(" or ")))?;
    let named = env::var_os("OTEL_SERVICE_NAME").is_some();
    let resource = Resource::builder();
    let resource = if named { resource } else { resource.with_service_name("graceful-server") };
    let pod = env::var("GRACEFUL_POD_NAME").ok().map(|name| KeyValue::new("k8s.pod.name", name));
    let uid = env::var("GRACEFUL_POD_UID").ok().map(|uid| KeyValue::new("k8s.pod.uid", uid));
    let resource = resource.with_attributes(pod.into_iter().chain(uid)).build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let tracer = provider.tracer("graceful-server");
    let _ = PROVIDER.set(provider);
    // Events stay in the logs; a span is exported with its fields alone.
    Ok(Some(tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false)))
}

/// Whether spans are exported.
#[must_use]
pub fn is_on() -> bool {
    PROVIDER.get().is_some()
}

/// Sends what waits; to be called before the process exits.
pub fn flush() {
    if let Some(provider) = PROVIDER.get()
        && let Err(error) = provider.shutdown_with_timeout(FLUSH)
    {
        tracing::warn!(%error, "the last spans were not exported");
    }
}

/// Makes `span` a child of `parent`, and says what its own children have as theirs.
pub(super) fn adopt(span: &Span, parent: Option<Traceparent>) -> Option<Traceparent> {
    if let Some(parent) = parent {
        let remote = SpanContext::new(
            TraceId::from(parent.trace()),
            SpanId::from(parent.parent()),
            TraceFlags::new(parent.flags()),
            true,
            TraceState::default(),
        );
        // An error means that the layer is not there; then there is nothing to adopt either.
        let _ = span.set_parent(Context::new().with_remote_span_context(remote));
    }
    let context = span.context();
    let own = context.span().span_context().clone();
    Traceparent::new(
        u128::from_be_bytes(own.trace_id().to_bytes()),
        u64::from_be_bytes(own.span_id().to_bytes()),
        own.trace_flags().to_u8(),
    )
}
