//! `/v1/bulk`, promise by promise, on a real queue in a folder of its own.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]
#![allow(dead_code, reason = "each test file uses its part of the pod")]

mod pod;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, header};
use graceful_store::State;
use pod::{Held, Plan, Pod, json};
use serde_json::{Value, json};
use tower::ServiceExt;

async fn held(capacity: u64) -> (Pod, Held) {
    let held = Held::default();
    (Plan { concurrency: 1, capacity, ..Plan::of(held.clone()) }.pod().await, held)
}

async fn send(app: &Router, path: &str, key: &str, body: &Value) -> (u16, Value) {
    let mut request = Request::builder().method(Method::POST).uri(path);
    request = request.header(header::CONTENT_TYPE, "application/json");
    if !key.is_empty() {
        request = request.header("idempotency-key", key);
    }
    let answer = app.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn tasks(number: usize) -> Value {
    json!({"tasks": vec![json!({"client_id": "ada"}); number]})
}

fn statuses(told: &Value) -> Vec<u64> {
    told["tasks"].as_array().unwrap().iter().map(|task| task["status"].as_u64().unwrap()).collect()
}

async fn change(app: &Router, what: &str, body: &Value) -> (u64, u64, Value) {
    let (status, told) = send(app, &format!("/v1/bulk/{what}"), "", body).await;
    assert_eq!(status, 200, "{told}");
    (told["matched"].as_u64().unwrap(), told["changed"].as_u64().unwrap(), told["next"].clone())
}

#[tokio::test]
async fn many_are_handed_in_and_each_is_answered() {
    let (pod, held) = held(1000).await;
    let (status, told) = send(&pod.public, "/v1/bulk/submit", "k", &tasks(100)).await;
    assert_eq!((status, statuses(&told)), (202, vec![202; 100]));
    let again = send(&pod.public, "/v1/bulk/submit", "k", &tasks(100)).await.1;
    assert_eq!(statuses(&again), vec![200; 100], "the same request is the same tasks");
    assert_eq!(again["tasks"][7]["id"], told["tasks"][7]["id"]);
    held.let_go(100);
    for task in told["tasks"].as_array().unwrap() {
        pod.ended(task["id"].as_str().unwrap().parse().unwrap()).await;
    }
    pod.told("graceful_server_tasks_accepted_total 100").await;
}

#[tokio::test]
async fn one_that_cannot_be_used_is_named_and_none_is_taken() {
    let (pod, _held) = held(1000).await;
    for (body, field) in [
        (json!({"tasks": [{}, {"priority": 1.5}]}), "tasks[1].priority"),
        (json!({"tasks": [{"kind": "slep"}]}), "tasks[0].kind"),
        (json!({"tasks": [{"input": {"seconds": "x"}}]}), "tasks[0].input.seconds"),
        (json!({"tasks": []}), "tasks"),
        (tasks(101), "tasks"),
    ] {
        let (status, told) = send(&pod.public, "/v1/bulk/submit", "", &body).await;
        assert_eq!((status, &told["field"]), (400, &json!(field)), "{told}");
    }
    let (status, told) = send(&pod.public, "/v1/bulk/submit", "", &json!({"task": []})).await;
    assert_eq!(status, 400, "{told}");
    let elsewhere = json!({"tasks": [{"queue": "mial"}]});
    let (status, told) = send(&pod.public, "/v1/bulk/submit", "", &elsewhere).await;
    assert_eq!((status, &told["field"]), (409, &json!("queue")), "{told}");
    let (_, all) = json(&pod.public, "GET", "/v1/tasks").await;
    assert_eq!(all["tasks"], json!([]));
}

#[tokio::test]
async fn a_queue_that_is_nearly_full_takes_some_and_a_full_one_says_so() {
    let (pod, _held) = held(5).await;
    let body = json!({"tasks": vec![json!({"delay_seconds": 3600}); 8]});
    let (status, told) = send(&pod.public, "/v1/bulk/submit", "", &body).await;
    assert_eq!((status, statuses(&told)), (207, vec![202, 202, 202, 202, 202, 429, 429, 429]));
    assert_eq!(told["tasks"][7]["detail"], "The queue is full");
    let (status, _) = send(&pod.public, "/v1/bulk/submit", "", &body).await;
    assert_eq!(status, 429);
}

#[tokio::test]
async fn many_are_counted_cancelled_retried_and_deleted_by_a_filter() {
    let (pod, held) = held(1000).await;
    let (_, told) = send(&pod.public, "/v1/bulk/submit", "", &tasks(25)).await;
    let first = told["tasks"][0]["id"].as_str().unwrap().parse().unwrap();
    pod.in_state(first, State::Running).await;
    let adas = json!({"client_id": "ada"});
    let dry = change(&pod.public, "cancel", &json!({"filter": adas, "dry_run": true})).await;
    assert_eq!(dry, (25, 0, Value::Null), "nothing was changed");
    // Ten at a time, each call from where the one before it ended.
    let (mut cursor, mut found, mut calls) = (Value::Null, 0, 0);
    loop {
        let body = json!({"filter": adas, "limit": 10, "cursor": cursor});
        let (matched, changed, next) = change(&pod.public, "cancel", &body).await;
        assert_eq!(matched, changed);
        (cursor, found, calls) = (next, found + changed, calls + 1);
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!((found, calls), (25, 3));
    held.let_go(1);
    pod.ended(first).await;
    let nobodys = json!({"filter": {"client_id": "eve"}});
    assert_eq!(change(&pod.public, "retry", &nobodys).await, (0, 0, Value::Null));
    let cancelled = json!({"filter": {"client_id": "ada", "state": ["cancelled"]}, "limit": 4});
    let (matched, changed, _) = change(&pod.public, "retry", &cancelled).await;
    assert_eq!((matched, changed), (4, 4));
    let (_, status) = json(&pod.admin, "GET", "/drain").await;
    let counted = |of: &str| status["inFlight"][of].as_u64().unwrap();
    // Where the cancelled one stopped before it was let go, one of these four took its leave, and may have ended.
    assert!((3..=4).contains(&(counted("queued") + counted("running"))), "{status}");
    let (matched, changed, _) = change(&pod.public, "delete", &json!({"filter": adas})).await;
    assert!(
        (21..=22).contains(&matched) && changed == matched,
        "{changed} of {matched}: those that have ended"
    );
    let (_, left) = json(&pod.public, "GET", "/v1/tasks?client_id=ada").await;
    assert_eq!(left["tasks"].as_array().unwrap().len() as u64, 25 - matched);
    let one = left["tasks"][0]["id"].as_str().unwrap();
    let delete = |id: String| {
        let request = Request::delete(format!("/v1/tasks/{id}")).body(Body::empty()).unwrap();
        let app = pod.public.clone();
        async move { app.oneshot(request).await.unwrap().status().as_u16() }
    };
    assert_eq!(delete(one.to_owned()).await, 409, "it has not ended");
    assert_eq!(delete(first.to_string()).await, 404, "it is gone");
    held.let_go(4);
    pod.ended(one.parse().unwrap()).await;
    assert_eq!(delete(one.to_owned()).await, 204);
    assert_eq!(delete(one.to_owned()).await, 404);
}
