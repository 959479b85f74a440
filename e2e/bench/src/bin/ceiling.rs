//! The ceiling: axum on the same runtime as the server, with the same answer to a submit, and nothing behind it.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use axum::serve::ListenerExt;
use axum::{Json, Router, routing};
use serde::Serialize;
use tokio::net::TcpListener;
use uuid::Uuid;

/// The server's answer, field by field.
#[derive(Serialize)]
struct Accepted {
    message: String,
    task_id: Uuid,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port = std::env::args().nth(1).context("ceiling PORT")?.parse().context("PORT is a number")?;
    let app = Router::new().route(
        "/v1/create-task/",
        routing::post(|| async {
            let task_id = Uuid::now_v7();
            Json(Accepted { message: format!("Task {task_id} Queued"), task_id })
        }),
    );
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    // Without it a failing option would show as latency; the server sets it too.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, app).await?;
    Ok(())
}
