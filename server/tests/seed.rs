//! The seed's API, answer for answer: its clients must not notice the change.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod pod;

use std::time::Duration;

use axum::http::{StatusCode, header};
use graceful_drain::{Drain, Settings};
use graceful_server::queue::{Opener, Queue};
use graceful_store::OpenError;
use pod::{Held, Plan, Pod, ask, json};
use serde_json::{Value, json};
use uuid::Uuid;

/// A pod that runs one task at a time and has room for two more; each waits until it is let go.
async fn pod() -> (Pod, Held) {
    let held = Held::default();
    (Plan { capacity: 2, concurrency: 1, ..Plan::of(held.clone()) }.pod().await, held)
}

async fn submit(pod: &Pod) -> String {
    let (status, body) = json(&pod.public, "POST", "/v1/create-task/").await;
    assert_eq!(status, 200, "{body}");
    body["task_id"].as_str().unwrap().to_owned()
}

/// A task as the seed's clients see it: they do not look at what we add.
async fn seen(pod: &Pod, path: &str) -> (u16, Value) {
    let (status, mut body) = json(&pod.public, "GET", path).await;
    body.as_object_mut().unwrap().retain(|field, _| ["task_id", "message"].contains(&field.as_str()));
    (status, body)
}

#[tokio::test]
async fn a_task_goes_from_queued_to_processed() {
    let (pod, held) = pod().await;
    let (status, body) = json(&pod.public, "POST", "/v1/create-task/").await;
    let id = body["task_id"].as_str().unwrap().to_owned();
    assert_eq!((status, &body), (200, &json!({"message": format!("Task {id} Queued"), "task_id": id})));

    let path = format!("/v1/tasks/{id}");
    let queued = json!({"task_id": id, "message": format!("Task {id} queued")});
    assert_eq!(seen(&pod, &path).await, (200, queued.clone()));
    assert_eq!(json(&pod.public, "GET", "/v1/get_queue_length/").await, (200, json!({"task_lenth": 1})));
    pod.running(1).await;
    assert_eq!(seen(&pod, &path).await, (200, queued), "the seed knows no running");
    assert_eq!(json(&pod.public, "GET", "/v1/get_queue_length/").await, (200, json!({"task_lenth": 1})));
    held.let_go(1);
    pod.ended(id.parse().unwrap()).await;
    let processed = json!({"task_id": id, "message": format!("Task {id} processed")});
    assert_eq!(seen(&pod, &path).await, (200, processed));
    assert_eq!(json(&pod.public, "GET", "/v1/get_queue_length/").await, (200, json!({"task_lenth": 0})));
}

#[tokio::test]
async fn what_is_not_there_is_said_as_the_seed_says_it() {
    let (pod, _held) = pod().await;
    let missing = (404, json!({"detail": "Task not found"}));
    assert_eq!(json(&pod.public, "GET", "/v1/tasks/0b4e2c9e-6b7e-4b2f-9d3a-0f6a5a1c2b3d").await, missing);
    assert_eq!(json(&pod.public, "GET", "/v1/tasks/nonsense").await, missing);
    assert_eq!(json(&pod.public, "GET", "/nowhere").await, (404, json!({"detail": "Not Found"})));
    assert_eq!(
        json(&pod.public, "GET", "/v1/create-task/").await,
        (405, json!({"detail": "Method Not Allowed"}))
    );
}

#[tokio::test]
async fn the_slash_at_the_end_is_optional() {
    let (pod, _held) = pod().await;
    assert_eq!(json(&pod.public, "POST", "/v1/create-task").await.0, 200);
    assert_eq!(json(&pod.public, "GET", "/v1/get_queue_length").await, (200, json!({"task_lenth": 1})));
}

#[tokio::test]
async fn a_draining_pod_refuses_tasks_but_answers_reads_and_probes() {
    let (pod, held) = pod().await;
    assert_eq!(json(&pod.public, "GET", "/v1/health").await, (200, json!({"status": "ok"})));
    let id = submit(&pod).await;

    pod.drain.start(1, Duration::from_secs(600)).unwrap();
    let unhealthy = (503, json!({"status": "Service Under Graceful Shutdown"}));
    assert_eq!(json(&pod.public, "GET", "/v1/health").await, unhealthy, "from the linger on");
    submit(&pod).await;
    for app in [&pod.public, &pod.admin] {
        assert_eq!(ask(app, "GET", "/readyz").await.0, StatusCode::OK, "it is unrouted by its label");
    }
    // SIGTERM cuts the linger short.
    pod.drain.terminate(Duration::ZERO);

    let (status, headers, body) = ask(&pod.public, "POST", "/v1/create-task/").await;
    assert_eq!((status.as_u16(), body.as_str()), (503, r#"{"detail":"Service Under Graceful Shutdown"}"#));
    assert!(headers.contains_key(header::RETRY_AFTER));
    assert_eq!(json(&pod.public, "GET", &format!("/v1/tasks/{id}")).await.0, 200);
    assert_eq!(json(&pod.public, "GET", "/v1/get_queue_length/").await, (200, json!({"task_lenth": 2})));
    for app in [&pod.public, &pod.admin] {
        assert_eq!(ask(app, "GET", "/livez").await.0, StatusCode::OK, "it lives");
        assert_eq!(
            ask(app, "GET", "/readyz").await.0,
            StatusCode::SERVICE_UNAVAILABLE,
            "nobody else unroutes it"
        );
    }
    // Both tasks, one after the other, are done before it is idle: its own queue it works off.
    held.let_go(1);
    pod.ended(id.parse().unwrap()).await;
    pod.running(1).await;
    assert_eq!(pod.drain.status().in_flight.total(), 1);
    held.let_go(1);
    pod.drain.idle().await;
    assert!(ask(&pod.public, "GET", &format!("/v1/tasks/{id}")).await.2.contains("processed"));
}

#[tokio::test]
async fn a_full_queue_answers_429_and_counts_it() {
    let (pod, held) = pod().await;
    submit(&pod).await;
    // The runner takes the first off the queue; two more may wait.
    pod.running(1).await;
    submit(&pod).await;
    submit(&pod).await;
    let (status, headers, body) = ask(&pod.public, "POST", "/v1/create-task/").await;
    assert_eq!((status.as_u16(), body.as_str()), (429, r#"{"detail":"The queue is full"}"#));
    assert!(headers.contains_key(header::RETRY_AFTER));
    let metrics = ask(&pod.admin, "GET", "/metrics").await.2;
    for line in [
        "graceful_server_requests_refused_total{reason=\"full\"} 1",
        "graceful_server_tasks_accepted_total 3",
        "graceful_server_in_flight{kind=\"queued\"} 2",
        "graceful_server_in_flight{kind=\"running\"} 1",
        "graceful_server_drain_state{state=\"Serving\"} 1",
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line} is not in\n{metrics}");
    }
    held.let_go(1);
    let room = pod.drain.wait_until(|status| status.in_flight.queued == 1);
    tokio::time::timeout(pod::TIMEOUT, room).await.unwrap();
    submit(&pod).await;
}

#[tokio::test]
async fn metrics_tell_of_what_was_refused_and_how_tasks_ended() {
    let (pod, held) = pod().await;
    submit(&pod).await;
    held.let_go(1);
    pod.drain.start(5, Duration::ZERO).unwrap();
    ask(&pod.public, "POST", "/v1/create-task/").await;
    pod.drain.idle().await;
    // The counter moves just after the count in flight.
    let wanted = [
        "graceful_server_requests_refused_total{reason=\"draining\"} 1",
        "graceful_server_tasks_finished_total{outcome=\"processed\"} 1",
        "graceful_server_tasks_finished_total{outcome=\"dead\"} 0",
        "graceful_server_task_duration_seconds_count{kind=\"sleep\"} 1",
        "graceful_server_drain_state{state=\"Idle\"} 1",
        "graceful_server_drain_epoch 5",
        "graceful_server_in_flight{kind=\"request\"} 0",
    ];
    let asking = async {
        loop {
            let (_, headers, metrics) = ask(&pod.admin, "GET", "/metrics").await;
            let kind = headers[header::CONTENT_TYPE].to_str().unwrap();
            assert!(kind.starts_with("application/openmetrics-text"));
            if wanted.iter().all(|line| metrics.lines().any(|one| one == *line)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(pod::TIMEOUT, asking).await.expect("each line comes");
}

#[tokio::test]
async fn the_public_port_has_neither_drain_nor_metrics() {
    let (pod, _held) = pod().await;
    for path in ["/drain", "/metrics"] {
        assert_eq!(ask(&pod.public, "GET", path).await.0, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(ask(&pod.admin, "GET", path).await.0, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_queue_that_is_not_open_answers_503_and_the_pod_is_not_ready() {
    let drain = Drain::new(Settings::default());
    let refuse: Opener =
        Box::new(|| Box::pin(async { Err(OpenError::Engine { detail: "no database here".to_owned() }) }));
    let (public, admin) =
        pod::routes(drain.clone(), Queue::keep(refuse, true, drain, std::sync::Arc::default(), None));
    let (status, headers, body) = ask(&public, "POST", "/v1/create-task/").await;
    assert!(status.as_u16() == 503 && body.contains("The queue is not open just now"), "{status} {body}");
    assert!(headers.contains_key(header::RETRY_AFTER));
    let read = json(&public, "GET", &format!("/v1/tasks/{}", Uuid::nil())).await;
    assert_eq!(read.0, 503, "whether it is there, nobody knows: {}", read.1);
    for app in [&public, &admin] {
        assert_eq!(ask(app, "GET", "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask(app, "GET", "/livez").await.0, StatusCode::OK, "a restart would not help");
    }
}

#[tokio::test]
async fn the_docs_are_in_the_binary_and_say_what_a_404_means() {
    let (pod, _held) = pod().await;
    assert_eq!(ask(&pod.public, "GET", "/docs").await.0, StatusCode::SEE_OTHER);
    let (status, _, page) = ask(&pod.public, "GET", "/docs/").await;
    assert!(status.is_success() && page.contains("swagger-ui-bundle.js"));
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing comes from elsewhere");
    assert_eq!(ask(&pod.public, "GET", "/docs/swagger-ui-bundle.js").await.0, StatusCode::OK);

    let (_, document) = json(&pod.public, "GET", "/openapi.json").await;
    assert!(document["info"]["description"].as_str().unwrap().contains("answers 404 for a task of another"));
    for path in ["/v1/create-task/", "/v1/tasks/{id}", "/v1/get_queue_length/", "/v1/health"] {
        assert!(document["paths"].get(path).is_some(), "{path}");
    }
    let out = &document["components"]["schemas"]["Task"]["properties"];
    assert!(out.get("task_id").is_some() && out.get("message").is_some());
}
