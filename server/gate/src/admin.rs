//! The admin port: `/drain` is graceful-drain's own; beside it health, metrics, and `/wait-idle` for the app's preStop hook.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use graceful_drain::{Drain, State as Phase};
use tokio::time::timeout;

use crate::metrics::Metrics;

/// How long `/wait-idle` waits for somebody to begin a drain. The kubelet runs the hooks of a pod's containers at the same time, and the gate's own begins it;
/// where a node is busy, seconds later. If nobody does, the pod does not end: the kubelet restarts the app's container alone (a failed liveness probe),
/// and would wait for this answer through the whole grace period.
const BEGINS: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Asked {
    drain: Drain,
    metrics: Arc<Metrics>,
}

pub(crate) fn routes(drain: &Drain, metrics: &Arc<Metrics>) -> Router {
    let asked = Asked { drain: drain.clone(), metrics: metrics.clone() };
    Router::new()
        .route("/wait-idle", get(wait_idle))
        .route("/metrics", get(text))
        // In all states: a drain is no fault. Whether the app is well its own probes say.
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ok\n" }))
        .with_state(asked)
        .merge(drain.routes())
}

/// Starts nothing, and answers once the pod is latched and idle.
async fn wait_idle(State(Asked { drain, .. }): State<Asked>) -> (StatusCode, &'static str) {
    let begun = drain.wait_until(|status| status.state != Phase::Serving);
    if timeout(BEGINS, begun).await.is_err() {
        return (StatusCode::OK, "nobody drains this pod: there is nothing to wait for\n");
    }
    loop {
        let status = drain.wait_until(|status| status.is_idle() || status.state == Phase::Serving).await;
        if status.is_idle() {
            return (StatusCode::OK, "idle\n");
        }
        // Put back to service: the end that this hook is part of is still to be drained for.
        drain.wait_until(|status| status.state != Phase::Serving).await;
    }
}

async fn text(State(Asked { drain, metrics }): State<Asked>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics.text(&drain))
}
