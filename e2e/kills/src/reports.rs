//! Where servers report each task's end.

use anyhow::Context;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::Shared;

/// What a server posts; it says more.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    task_id: Uuid,
    boot_id: String,
    outcome: String,
}

/// Listens; the URL to report to.
pub(crate) async fn listen(shared: Shared) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on loopback")?;
    let url = format!("http://{}/report", listener.local_addr()?);
    let app = Router::new().route("/report", post(take)).with_state(shared);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}

async fn take(State(shared): State<Shared>, Json(report): Json<Report>) -> StatusCode {
    let Report { task_id, boot_id, outcome } = report;
    if outcome == "processed" {
        shared.ledger().reported(task_id, boot_id);
    } else {
        eprintln!("task {task_id} ended otherwise: {outcome}");
    }
    StatusCode::NO_CONTENT
}
