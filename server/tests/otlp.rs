//! Spans reach a collector, with the trace of the request that brought the task, across the queue.
#![cfg(feature = "otlp")]
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod child;

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::{Router, routing};
use child::Server;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Keeps what is exported to it.
async fn collector() -> (String, UnboundedReceiver<Bytes>) {
    let (seen, exports) = unbounded_channel();
    let take =
        |State(seen): State<UnboundedSender<Bytes>>, body: Bytes| async move { seen.send(body).unwrap() };
    let app = Router::new().route("/v1/traces", routing::post(take)).with_state(seen);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, exports)
}

/// Ids stand in the export as they are, 16 and 8 bytes.
fn times(body: &[u8], hex: &str) -> usize {
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
    body.windows(bytes.len()).filter(|window| *window == bytes.as_slice()).count()
}

#[tokio::test]
async fn the_trace_of_a_submission_goes_on_in_its_attempt() {
    let (url, mut exports) = collector().await;
    let args = ["--task-seconds", "0", "--linger-seconds", "0"];
    let mut server = Server::start_with(&args, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]).await;
    let submit = format!("http://127.0.0.1:{}/v1/create-task/", server.public);
    let request =
        reqwest::Client::new().post(submit).header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    assert_eq!(request.send().await.unwrap().status(), 200);
    server.signal("TERM");
    assert_eq!(server.exit().await, 0);
    let mut all = Vec::new();
    while let Ok(Some(body)) = timeout(Duration::from_millis(200), exports.recv()).await {
        all.extend_from_slice(&body);
    }
    let names = |name: &str| all.windows(name.len()).any(|window| window == name.as_bytes());
    assert!(names("submit sleep") && names("run sleep"), "two spans, sent before the process ended");
    assert_eq!(times(&all, TRACE), 2, "both of the request's trace");
    assert_eq!(times(&all, PARENT), 1, "the submission is the request's child, the attempt the submission's");
}
