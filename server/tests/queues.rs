//! `/v1/queues`, promise by promise, on a real queue in a folder of its own.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]
#![allow(dead_code, reason = "each test file uses its part of the pod")]

mod pod;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, header};
use graceful_store::{QueueSettings, State};
use pod::{Held, Plan, Pod, json};
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

async fn held(concurrency: usize) -> (Pod, Held) {
    let held = Held::default();
    (Plan { concurrency, ..Plan::of(held.clone()) }.pod().await, held)
}

async fn send(app: &Router, method: Method, path: &str, body: &Value) -> (u16, Value) {
    let request =
        Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
    let answer = app.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

async fn put(app: &Router, name: &str, settings: &Value) -> (u16, Value) {
    send(app, Method::PUT, &format!("/v1/queues/{name}"), settings).await
}

async fn submit(app: &Router, task: &Value) -> Uuid {
    let (status, task) = send(app, Method::POST, "/v1/tasks", task).await;
    assert_eq!(status, 202, "{task}");
    task["id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_queue_is_made_looked_at_changed_and_removed() {
    let (pod, _held) = held(1).await;
    let settings = json!({"concurrency": 2, "rate_per_second": 0.5, "max_attempts": 7});
    let (status, made) = put(&pod.public, "mail", &settings).await;
    assert_eq!((status, &made["settings"]["burst"]), (201, &json!(1)), "{made}");
    assert_eq!(
        (&made["paused"], &made["queued"], &made["oldest_seconds"]),
        (&json!(false), &json!(0), &json!(0.0))
    );
    let (status, changed) = put(&pod.public, "mail", &json!({})).await;
    assert_eq!((status, &changed["settings"]["concurrency"]), (200, &Value::Null), "{changed}");
    let (_, all) = json(&pod.public, "GET", "/v1/queues").await;
    let names: Vec<_> = all["queues"].as_array().unwrap().iter().map(|queue| queue["name"].clone()).collect();
    assert_eq!(names, ["default", "mail"]);
    for (path, expected) in [("mail", 204), ("mail", 404), ("default", 409), ("No", 404)] {
        let (status, told) =
            send(&pod.public, Method::DELETE, &format!("/v1/queues/{path}"), &json!(null)).await;
        assert_eq!(status, expected, "{path}: {told}");
    }
    let (status, told) = put(&pod.public, "No", &json!({})).await;
    assert_eq!((status, &told["field"]), (400, &json!("name")), "{told}");
    let (status, told) = put(&pod.public, "mail", &json!({"concurrency": -1})).await;
    assert_eq!((status, &told["field"]), (400, &json!("concurrency")), "{told}");
}

#[tokio::test]
async fn a_task_for_a_queue_that_is_not_there_is_refused_by_the_fields_name() {
    let (pod, _held) = held(1).await;
    let (status, told) = send(&pod.public, Method::POST, "/v1/tasks", &json!({"queue": "mial"})).await;
    assert_eq!((status, &told["field"]), (409, &json!("queue")), "{told}");
    let said = told["detail"].as_str().unwrap();
    assert!(said.contains("there is no queue `mial`; PUT /v1/queues/mial makes one"), "{said}");
    for (body, field) in [
        (json!({"queue": "a b"}), "queue"),
        (json!({"queue": 7}), "queue"),
        (json!({"concurrency_key": ""}), "concurrency_key"),
    ] {
        let (status, told) = send(&pod.public, Method::POST, "/v1/tasks", &body).await;
        assert_eq!((status, &told["field"]), (400, &json!(field)), "{told}");
    }
}

#[tokio::test]
async fn a_paused_queue_is_worked_off_once_it_is_resumed_and_counts_in_flight_meanwhile() {
    let (pod, held) = held(4).await;
    put(&pod.public, "mail", &json!({})).await;
    let (status, paused) = json(&pod.public, "POST", "/v1/queues/mail/pause").await;
    assert_eq!((status, &paused["paused"]), (200, &json!(true)));
    let waits = submit(&pod.public, &json!({"queue": "mail", "concurrency_key": "ada"})).await;
    let runs = submit(&pod.public, &json!({})).await;
    pod.in_state(runs, State::Running).await;
    let (_, status) = json(&pod.admin, "GET", "/drain").await;
    assert_eq!((&status["inFlight"]["queued"], &status["inFlight"]["running"]), (&json!(1), &json!(1)));
    let (_, told) = json(&pod.public, "GET", &format!("/v1/tasks/{waits}")).await;
    assert_eq!((&told["queue"], &told["concurrency_key"]), (&json!("mail"), &json!("ada")));
    assert_eq!(told["state"], "queued");
    let (status, told) = send(&pod.public, Method::DELETE, "/v1/queues/mail", &json!(null)).await;
    assert_eq!(status, 409, "{told}");
    assert!(told["detail"].as_str().unwrap().contains("let it work, or cancel them"), "{told}");
    let (_, resumed) = json(&pod.public, "POST", "/v1/queues/mail/resume").await;
    assert_eq!(resumed["paused"], json!(false));
    held.let_go(2);
    pod.ended(waits).await;
    let (_, found) = json(&pod.public, "GET", "/v1/tasks?queue=mail").await;
    assert_eq!(found["tasks"].as_array().unwrap().len(), 1);
    for action in ["pause", "resume"] {
        let (status, _) = json(&pod.public, "POST", &format!("/v1/queues/none/{action}")).await;
        assert_eq!(status, 404);
    }
}

#[tokio::test]
async fn a_flood_leaves_room_for_others_and_a_queue_says_how_often() {
    let (pod, held) = held(2).await;
    put(&pod.public, "bulk", &json!({"concurrency": 1, "max_attempts": 3})).await;
    let flood: Vec<_> = {
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(submit(&pod.public, &json!({"queue": "bulk"})).await);
        }
        ids
    };
    let other = submit(&pod.public, &json!({})).await;
    pod.in_state(other, State::Running).await;
    let (_, bulk) = json(&pod.public, "GET", "/v1/queues/bulk").await;
    assert_eq!((&bulk["queued"], &bulk["running"]), (&json!(4), &json!(1)));
    assert!(bulk["oldest_seconds"].as_f64().unwrap() >= 0.0);
    let attempts = |id| pod.task(id, |_| true);
    assert_eq!(attempts(flood[0]).await.max_attempts, 3, "the queue's");
    assert_eq!(attempts(other).await.max_attempts, pod.defaults.max_attempts);
    let own = submit(&pod.public, &json!({"queue": "bulk", "max_attempts": 9})).await;
    assert_eq!(attempts(own).await.max_attempts, 9, "its own");
    held.let_go(7);
    for id in flood.into_iter().chain([other, own]) {
        pod.ended(id).await;
    }
}

#[tokio::test]
async fn prometheus_is_told_of_each_queue_of_answers_and_of_the_process() {
    let (pod, held) = held(1).await;
    put(&pod.public, "mail", &json!({})).await;
    json(&pod.public, "POST", "/v1/queues/mail/pause").await;
    submit(&pod.public, &json!({"queue": "mail"})).await;
    json(&pod.public, "GET", "/v1/tasks/nothing").await;
    json(&pod.public, "GET", "/nowhere/at/all").await;
    for line in [
        "graceful_server_queue_waiting{queue=\"mail\"} 1",
        "graceful_server_queue_paused{queue=\"mail\"} 1",
        "graceful_server_queue_paused{queue=\"default\"} 0",
        "graceful_server_http_request_duration_seconds_count{method=\"POST\",route=\"/v1/tasks\",status=\"202\"} 1",
        "graceful_server_http_request_duration_seconds_count{method=\"GET\",route=\"/v1/tasks/{id}\",status=\"404\"} 1",
        "graceful_server_http_request_duration_seconds_count{method=\"GET\",route=\"other\",status=\"404\"} 1",
    ] {
        pod.told(line).await;
    }
    let (_, _, text) = pod::ask(&pod.admin, "GET", "/metrics").await;
    for name in ["process_resident_memory_bytes ", "process_cpu_seconds_total ", "process_open_fds "] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}: {text}");
    }
    held.let_go(0);
}

#[tokio::test]
async fn answers_that_nobody_takes_fill_no_memory() {
    let (pod, _held) = held(1).await;
    for number in 1..500 {
        let made =
            pod.queue.store().unwrap().put_queue(&format!("q{number}"), QueueSettings::default()).await;
        made.unwrap();
    }
    let look = async |path: &str| {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        pod.public.clone().oneshot(request).await.unwrap()
    };
    let mut untaken = Vec::new();
    let refused = loop {
        let answer = look("/v1/queues").await;
        if answer.status() != 200 || untaken.len() == 2000 {
            break answer;
        }
        untaken.push(answer);
    };
    assert_eq!(refused.status(), 503, "{} are held", untaken.len());
    assert_eq!(look("/v1/queue/history").await.status(), 503);
    drop(untaken);
    for path in ["/v1/queues", "/v1/queue/history"] {
        assert_eq!(look(path).await.status(), 200, "{path}");
    }
}
