//! The examples, run for real: each does what its first lines say.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod child;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Router, routing};
use child::Server;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Hands in a task; its id.
async fn create(server: &Server, task: Value) -> String {
    let (status, body) = server.call("POST", "/v1/tasks", Some(&task)).await;
    assert_eq!(status, 202, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

async fn cancel(server: &Server, id: &str) {
    let (status, body) = server.call("POST", &format!("/v1/tasks/{id}/cancel"), None).await;
    assert_eq!(status, 202, "{body}");
}

#[tokio::test]
async fn sleep_tells_how_far_it_is_and_can_be_woken() {
    let server = Server::example("sleep", &[]).await;
    let short = create(&server, json!({"kind": "nap", "input": {"seconds": 0.2}})).await;
    let task = server.task(&short, |task| task["ended_at"].is_string()).await;
    assert_eq!((&task["state"], &task["output"]), (&json!("succeeded"), &json!("slept 0.2 s in attempt 1")));

    let long = create(&server, json!({"kind": "nap", "input": {"seconds": 600}})).await;
    server.task(&long, |task| task["progress"]["done"].is_f64()).await;
    cancel(&server, &long).await;
    let task = server.task(&long, |task| task["ended_at"].is_string()).await;
    assert_eq!(task["state"], "cancelled");

    let refused = json!({"kind": "nap", "input": {"seconds": -1}});
    let (status, problem) = server.call("POST", "/v1/tasks", Some(&refused)).await;
    assert_eq!((status, &problem["field"]), (400, &json!("input.seconds")), "{problem}");
}

/// A service that is busy for the first two calls, and knows one path.
async fn service() -> (String, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let answer = async |State(calls): State<Arc<AtomicU32>>, headers: HeaderMap| {
        let key = headers["idempotency-key"].to_str().unwrap().to_owned();
        match calls.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], key),
            _ => (StatusCode::OK, [("retry-after", "0")], key),
        }
    };
    let app = Router::new().route("/order", routing::post(answer)).with_state(calls.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, calls)
}

#[tokio::test]
async fn http_call_tries_again_while_the_other_side_is_busy_and_gives_up_on_its_own_mistake() {
    let (url, calls) = service().await;
    let server = Server::example("http_call", &[]).await;
    let order = json!({"kind": "http-call", "input": {"url": format!("{url}/order"), "body": {"pizza": 1}}});
    let id = create(&server, order).await;
    let task = server.task(&id, |task| task["ended_at"].is_string()).await;
    assert_eq!((&task["state"], &task["attempt"]), (&json!("succeeded"), &json!(3)), "{task}");
    assert_eq!(task["output"], json!({"status": 200, "body": id}), "each call carried the task's id");
    assert_eq!(calls.load(Ordering::SeqCst), 3);

    let wrong = json!({"kind": "http-call", "input": {"url": format!("{url}/nowhere")}});
    let id = create(&server, wrong).await;
    let task = server.task(&id, |task| task["ended_at"].is_string()).await;
    assert_eq!((&task["state"], &task["attempt"]), (&json!("dead"), &json!(1)), "{task}");
    assert!(task["error"].as_str().unwrap().contains("404"), "{task}");
}

#[tokio::test]
async fn cpu_bound_leaves_the_server_free_to_answer_and_stops_when_asked() {
    let server = Server::example("cpu_bound", &[]).await;
    let small = create(&server, json!({"kind": "count-primes", "input": {"below": 10_000}})).await;
    let task = server.task(&small, |task| task["ended_at"].is_string()).await;
    assert_eq!((&task["state"], &task["output"]), (&json!("succeeded"), &json!(1229)));

    let large = create(&server, json!({"kind": "count-primes", "input": {"below": 1_000_000_000}})).await;
    server.task(&large, |task| task["progress"]["found"].is_u64()).await;
    assert_eq!(server.status().await["inFlight"]["running"], 1);
    cancel(&server, &large).await;
    let task = server.task(&large, |task| task["ended_at"].is_string()).await;
    assert_eq!(task["state"], "cancelled");
}
