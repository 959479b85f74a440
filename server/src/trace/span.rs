//! The two spans of a task: the submission, and each attempt. Logs written inside of them carry their fields.

use axum::http::HeaderMap;
use tracing::{Span, field, info_span};
use uuid::Uuid;

use super::Traceparent;

/// Of a request that brings a task: what the task takes along as its parent. With the feature `otlp` the submission is a
/// span of its own and the parent; it ends when `Span` is dropped.
#[must_use]
pub fn submission(headers: &HeaderMap, task: Uuid, kind: &str) -> (Span, Option<Traceparent>) {
    let incoming = Traceparent::of(headers);
    #[cfg(feature = "otlp")]
    if super::otlp::is_on() {
        let span = info_span!(
            "submit",
            otel.name = format!("submit {kind}"),
            otel.kind = "producer",
            messaging.message.id = %task,
            messaging.destination.name = kind
        );
        let own = super::otlp::adopt(&span, incoming);
        return (span, own.or(incoming));
    }
    let _ = (task, kind);
    (Span::none(), incoming)
}

/// Of one attempt: everything logged inside names the task, its client and its trace.
#[must_use]
pub fn attempt(
    task: Uuid,
    kind: &str,
    client: Option<&str>,
    attempt: u16,
    parent: Option<Traceparent>,
) -> (Span, Option<Traceparent>) {
    let span = info_span!(
        "task",
        task_id = %task,
        kind,
        client_id = client.map(field::display),
        attempt,
        trace_id = parent.map(|parent| field::display(parent.trace_id())),
        otel.name = format!("run {kind}"),
        otel.kind = "consumer",
        otel.status_code = field::Empty,
        otel.status_description = field::Empty,
    );
    #[cfg(feature = "otlp")]
    let parent = super::otlp::adopt(&span, parent).or(parent);
    (span, parent)
}
