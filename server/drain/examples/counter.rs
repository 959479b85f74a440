//! A whole app that can be drained: it takes work, does it in the background, and tells its WebSocket clients.
//!
//! ```text
//! cargo run -p graceful-drain --example counter &
//! curl -X POST localhost:8000/work
//! curl localhost:9808/drain
//! curl -X PUT localhost:9808/drain -d '{"epoch": 1, "lingerSeconds": 3}'
//! kill -TERM %1        # ends once the work is done
//! ```

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::{get, post};
use graceful_drain::{Drain, Farewell, RequestGuard, Settings, Signals, closing_frame, serve};
use tokio::net::TcpListener;

async fn work(request: RequestGuard) -> &'static str {
    let mut task = request.queue_task();
    tokio::spawn(async move {
        task.start();
        tokio::time::sleep(Duration::from_secs(10)).await;
    });
    "queued\n"
}

async fn watch(State(drain): State<Drain>, upgrade: WebSocketUpgrade) -> Response {
    drain.on_upgrade(upgrade, session)
}

async fn session(mut socket: WebSocket, farewell: Farewell) {
    tokio::select! {
        // Reading on, so that pings are answered, until the client leaves.
        () = async { while let Some(Ok(_)) = socket.recv().await {} } => return,
        () = farewell.told() => {}
    }
    if socket.send("goodbye".into()).await.is_ok() && socket.send(closing_frame()).await.is_ok() {
        let _ = socket.recv().await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let signals = Signals::install()?;
    let drain = Drain::new(Settings::from_env());
    let app = Router::new()
        .route("/work", post(work))
        .route("/ws", get(watch))
        .route_layer(drain.gate())
        .route("/livez", get(|| async { "ok\n" }))
        .with_state(drain.clone());
    let public = TcpListener::bind("0.0.0.0:8000").await?;
    let admin = TcpListener::bind("0.0.0.0:9808").await?;
    let exit = serve((public, app), (admin, drain.routes()), drain, signals).await;
    std::process::exit(exit.code())
}
