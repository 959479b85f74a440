//! `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::Metrics;
use crate::pulse::Pulse;

/// What the routes report.
#[derive(Clone)]
pub(crate) struct Health {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) pulse: Arc<Pulse>,
    /// All watches have shown their first list.
    pub(crate) ready: Arc<AtomicBool>,
}

/// Answers until it is dropped.
pub(crate) async fn serve(listener: TcpListener, health: Health) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(health);
    axum::serve(listener, routes).await
}

/// Of the loop that works, not of the process that answers: an operator that stands still is restarted.
async fn livez(State(health): State<Health>) -> (StatusCode, String) {
    match health.pulse.stuck() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(stuck) => (StatusCode::SERVICE_UNAVAILABLE, format!("stuck: {stuck}\n")),
    }
}

async fn readyz(State(health): State<Health>) -> (StatusCode, &'static str) {
    if health.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the first lists are not complete; are the CRD and the RBAC rules installed?\n",
        )
    }
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], health.metrics.text())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::app_ref::AppRef;
    use crate::leader::Leadership;
    use crate::pulse::STUCK;

    /// A loop that hangs is restarted, though the process answers.
    #[tokio::test(start_paused = true)]
    async fn a_plan_that_does_not_end_fails_the_liveness_probe() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pulse = Arc::<Pulse>::default();
        let health = Health {
            metrics: Arc::new(Metrics::new(Leadership::Sole)),
            pulse: Arc::clone(&pulse),
            ready: Arc::default(),
        };
        tokio::spawn(serve(listener, health));
        let livez = async || {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let app = AppRef::new("a").within("n");
        let plan = tokio::spawn({
            let (pulse, app) = (Arc::clone(&pulse), app.clone());
            async move { pulse.of(&app, std::future::pending::<()>()).await }
        });
        assert!(livez().await.starts_with("HTTP/1.0 200"));
        tokio::time::advance(STUCK * 2).await;
        let answer = livez().await;
        assert!(
            answer.starts_with("HTTP/1.0 503") && answer.contains(&format!("the plan of {app} does not end")),
            "{answer}"
        );
        plan.abort();
        let _aborted = plan.await;
        assert!(livez().await.starts_with("HTTP/1.0 200"));
    }
}
