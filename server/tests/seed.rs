//! The seed's API, answer for answer: its clients must not notice the change.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use graceful_drain::{Drain, Settings};
use graceful_server::api::{self, Api};
use graceful_server::events::hub::{self, Hub};
use graceful_server::metrics::Metrics;
use graceful_server::queue::Queue;
use graceful_server::worker::Worker;
use serde_json::{Value, json};
use tower::ServiceExt;

struct Pod {
    drain: Drain,
    public: Router,
    admin: Router,
}

/// A pod with room for two tasks beside the one that runs, each of 20 s.
fn pod() -> Pod {
    let drain = Drain::new(Settings::default());
    let metrics = Arc::new(Metrics::default());
    let hub = Hub::new(hub::Settings::default(), drain.clone(), metrics.clone());
    tokio::spawn(hub.clone().attend());
    let queue = Arc::new(Queue::new(2, 100));
    let worker = Worker {
        task_seconds: "20".parse().unwrap(),
        hub: hub.clone(),
        reporter: None,
        metrics: metrics.clone(),
    };
    tokio::spawn(worker.work(queue.clone(), 1));
    let api = Api { drain: drain.clone(), queue, hub, metrics };
    Pod { drain, admin: api::admin(&api), public: api::public(api) }
}

async fn ask(app: &Router, method: &str, path: &str) -> (StatusCode, HeaderMap, String) {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let (parts, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, 10 << 20).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn json(app: &Router, method: &str, path: &str) -> (u16, Value) {
    let (status, _, body) = ask(app, method, path).await;
    (status.as_u16(), serde_json::from_str(&body).unwrap())
}

async fn submit(pod: &Pod) -> String {
    let (status, body) = json(&pod.public, "POST", "/v1/create-task/").await;
    assert_eq!(status, 200, "{body}");
    body["task_id"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_task_goes_from_queued_to_processed() {
    let pod = pod();
    let (status, body) = json(&pod.public, "POST", "/v1/create-task/").await;
    let id = body["task_id"].as_str().unwrap().to_owned();
    assert_eq!((status, &body), (200, &json!({"message": format!("Task {id} Queued"), "task_id": id})));

    let path = format!("/v1/tasks/{id}");
    let queued = json!({"task_id": id, "message": format!("Task {id} queued")});
    assert_eq!(json(&pod.public, "GET", &path).await, (200, queued.clone()));
    assert_eq!(json(&pod.public, "GET", "/v1/get_queue_length/").await, (200, json!({"task_lenth": 1})));
    tokio::time::sleep(Duration::from_secs(19)).await;
    assert_eq!(json(&pod.public, "GET", &path).await, (200, queued), "a task takes its 20 s");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let processed = json!({"task_id": id, "message": format!("Task {id} processed")});
    assert_eq!(json(&pod.public, "GET", &path).await, (200, processed));
    assert_eq!(json(&pod.public, "GET", "/v1/get_queue_length/").await, (200, json!({"task_lenth": 0})));
}

#[tokio::test]
async fn what_is_not_there_is_said_as_the_seed_says_it() {
    let pod = pod();
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
    let pod = pod();
    assert_eq!(json(&pod.public, "POST", "/v1/create-task").await.0, 200);
    assert_eq!(json(&pod.public, "GET", "/v1/get_queue_length").await, (200, json!({"task_lenth": 1})));
}

#[tokio::test(start_paused = true)]
async fn a_draining_pod_refuses_tasks_but_answers_reads_and_probes() {
    let pod = pod();
    assert_eq!(json(&pod.public, "GET", "/v1/health").await, (200, json!({"status": "ok"})));
    let id = submit(&pod).await;

    pod.drain.start(1, Duration::from_secs(3)).unwrap();
    let unhealthy = (503, json!({"status": "Service Under Graceful Shutdown"}));
    assert_eq!(json(&pod.public, "GET", "/v1/health").await, unhealthy, "from the linger on");
    submit(&pod).await;
    tokio::time::sleep(Duration::from_secs(3)).await;

    let (status, headers, body) = ask(&pod.public, "POST", "/v1/create-task/").await;
    assert_eq!((status.as_u16(), body.as_str()), (503, r#"{"detail":"Service Under Graceful Shutdown"}"#));
    assert!(headers.contains_key(header::RETRY_AFTER));
    assert_eq!(json(&pod.public, "GET", &format!("/v1/tasks/{id}")).await.0, 200);
    assert_eq!(json(&pod.public, "GET", "/v1/get_queue_length/").await, (200, json!({"task_lenth": 2})));
    for app in [&pod.public, &pod.admin] {
        for probe in ["/livez", "/readyz"] {
            assert_eq!(ask(app, "GET", probe).await.0, StatusCode::OK, "{probe}");
        }
    }
    // Both tasks, one after the other, are done before it is idle.
    let started = tokio::time::Instant::now();
    pod.drain.idle().await;
    assert_eq!(started.elapsed().as_secs(), 37, "17 s are left of the first, and the second takes 20 s");
    assert!(ask(&pod.public, "GET", &format!("/v1/tasks/{id}")).await.2.contains("processed"));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_answers_429_and_counts_it() {
    let pod = pod();
    submit(&pod).await;
    // The worker takes the first off the queue; two more may wait.
    pod.drain.wait_until(|status| status.in_flight.running == 1).await;
    submit(&pod).await;
    submit(&pod).await;
    let (status, headers, body) = ask(&pod.public, "POST", "/v1/create-task/").await;
    assert_eq!((status.as_u16(), body.as_str()), (429, r#"{"detail":"The queue is full"}"#));
    assert!(headers.contains_key(header::RETRY_AFTER));
    let metrics = ask(&pod.admin, "GET", "/metrics").await.2;
    for line in [
        "graceful_server_requests_refused_total{reason=\"full\"} 1",
        "graceful_server_tasks_accepted_total 3",
        "graceful_server_queue_depth{state=\"queued\"} 2",
        "graceful_server_queue_depth{state=\"running\"} 1",
        "graceful_server_drain_state{state=\"Serving\"} 1",
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line} is not in\n{metrics}");
    }
    tokio::time::sleep(Duration::from_secs(21)).await;
    submit(&pod).await;
}

#[tokio::test(start_paused = true)]
async fn metrics_tell_of_what_was_refused_and_how_long_tasks_took() {
    let pod = pod();
    submit(&pod).await;
    pod.drain.start(5, Duration::ZERO).unwrap();
    ask(&pod.public, "POST", "/v1/create-task/").await;
    pod.drain.idle().await;
    let (_, headers, metrics) = ask(&pod.admin, "GET", "/metrics").await;
    assert!(headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("application/openmetrics-text"));
    for line in [
        "graceful_server_requests_refused_total{reason=\"draining\"} 1",
        "graceful_server_tasks_finished_total{outcome=\"processed\"} 1",
        "graceful_server_task_duration_seconds_count 1",
        "graceful_server_task_duration_seconds_bucket{le=\"10.0\"} 0",
        "graceful_server_task_duration_seconds_bucket{le=\"30.0\"} 1",
        "graceful_server_drain_state{state=\"Idle\"} 1",
        "graceful_server_drain_epoch 5",
        "graceful_server_requests_in_flight 0",
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn the_public_port_has_neither_drain_nor_metrics() {
    let pod = pod();
    for path in ["/drain", "/metrics"] {
        assert_eq!(ask(&pod.public, "GET", path).await.0, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(ask(&pod.admin, "GET", path).await.0, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn the_docs_are_in_the_binary_and_say_what_a_404_means() {
    let pod = pod();
    assert_eq!(ask(&pod.public, "GET", "/docs").await.0, StatusCode::SEE_OTHER);
    let (status, _, page) = ask(&pod.public, "GET", "/docs/").await;
    assert!(status.is_success() && page.contains("swagger-ui-bundle.js"));
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing comes from elsewhere");
    assert_eq!(ask(&pod.public, "GET", "/docs/swagger-ui-bundle.js").await.0, StatusCode::OK);

    let (_, document) = json(&pod.public, "GET", "/openapi.json").await;
    assert!(
        document["info"]["description"]
            .as_str()
            .unwrap()
            .contains("until a shared engine comes, a pod answers 404")
    );
    for path in ["/v1/create-task/", "/v1/tasks/{id}", "/v1/get_queue_length/", "/v1/health"] {
        assert!(document["paths"].get(path).is_some(), "{path}");
    }
    let out = &document["components"]["schemas"]["TaskOut"]["properties"];
    assert!(out.get("task_id").is_some() && out.get("message").is_some());
}
