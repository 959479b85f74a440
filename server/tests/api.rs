//! `/v1`, promise by promise, on a real queue in a folder of its own.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]
#![allow(dead_code, reason = "each test file uses its part of the pod")]

mod pod;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, header};
use graceful_drain::{Drain, Settings};
use graceful_server::kind::{Failure, Kind};
use graceful_server::queue::{Opener, Queue};
use graceful_server::running::Running;
use graceful_server::sleep::Sleep;
use graceful_store::{OpenError, State};
use pod::{Held, Plan, Pod, ask, json};
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

/// A pod that runs one task at a time, each until it is let go.
async fn held() -> (Pod, Held) {
    let held = Held::default();
    (Plan { concurrency: 1, ..Plan::of(held.clone()) }.pod().await, held)
}

type Headers<'a> = &'a [(&'a str, &'a str)];

async fn send(
    app: &Router,
    path: &str,
    headers: Headers<'_>,
    body: impl Into<Body>,
) -> (u16, HeaderMap, Value) {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, body) = app.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, 10 << 20).await.unwrap();
    (parts.status.as_u16(), parts.headers, serde_json::from_slice(&body).unwrap())
}

const JSON: (&str, &str) = ("content-type", "application/json");

async fn submit(app: &Router, body: &Value) -> (u16, Value) {
    let (status, _, task) = send(app, "/v1/tasks", &[JSON], body.to_string()).await;
    (status, task)
}

/// Hands in what must be taken.
async fn take(app: &Router, body: &Value) -> Uuid {
    let (status, task) = submit(app, body).await;
    assert_eq!(status, 202, "{task}");
    task["id"].as_str().unwrap().parse().unwrap()
}

async fn refused(app: &Router, body: &Value) -> Value {
    let (status, headers, problem) = send(app, "/v1/tasks", &[JSON], body.to_string()).await;
    assert_eq!(status, 400, "{body}: {problem}");
    assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(problem["status"], 400);
    problem
}

#[tokio::test]
async fn a_task_that_is_handed_in_is_told_with_its_place_and_is_found_there() {
    let (pod, held) = held().await;
    let body = json!({
        "kind": "sleep", "input": {"seconds": 3}, "priority": -7, "timeout_seconds": 2.5, "max_attempts": 4,
        "client_id": "alice", "keep_seconds": 60, "delay_seconds": 0,
    });
    let (status, headers, told) = send(&pod.public, "/v1/tasks", &[JSON], body.to_string()).await;
    assert_eq!(status, 202, "{told}");
    let place = headers[header::LOCATION].to_str().unwrap();
    assert_eq!(place, format!("/v1/tasks/{}", told["id"].as_str().unwrap()));
    for (field, value) in [
        ("kind", json!("sleep")),
        ("input", json!({"seconds": 3})),
        ("priority", json!(-7)),
        ("timeout_seconds", json!(2.5)),
        ("max_attempts", json!(4)),
        ("client_id", json!("alice")),
        ("state", json!("queued")),
        ("attempt", json!(0)),
        ("output", Value::Null),
        ("ended_at", Value::Null),
        ("task_id", told["id"].clone()),
        ("message", json!(format!("Task {} queued", told["id"].as_str().unwrap()))),
    ] {
        assert_eq!(told[field], value, "{field}");
    }
    let id = told["id"].as_str().unwrap().parse().unwrap();
    pod.in_state(id, State::Running).await;
    let (_, running) = json(&pod.public, "GET", place).await;
    assert_eq!((&running["state"], &running["attempt"]), (&json!("running"), &json!(1)));
    assert_eq!(running["message"], told["message"], "the seed knows no running");
    let same = |task: &Value| {
        ["kind", "input", "priority", "timeout_seconds", "max_attempts", "client_id", "id"]
            .map(|f| task[f].clone())
    };
    assert_eq!(same(&running), same(&told));
    held.let_go(1);
    pod.ended(id).await;
    let (_, ended) = json(&pod.public, "GET", place).await;
    assert_eq!((&ended["state"], &ended["error"]), (&json!("succeeded"), &Value::Null));
    assert_eq!(ended["message"], format!("Task {id} processed"));
    assert!(ended["ended_at"].as_str() >= ended["started_at"].as_str() && ended["started_at"].is_string());
}

#[tokio::test]
async fn everything_has_a_default_and_null_is_as_good_as_nothing() {
    let (pod, _held) = held().await;
    let (status, plain) = submit(&pod.public, &json!({})).await;
    assert_eq!((status, &plain["kind"], &plain["input"]), (202, &json!("sleep"), &json!({})));
    assert_eq!((&plain["max_attempts"], &plain["priority"]), (&json!(3), &json!(0)));
    let nulls =
        ["kind", "input", "priority", "delay_seconds", "not_before", "timeout_seconds", "max_attempts"];
    let body =
        nulls.into_iter().chain(["client_id", "keep_seconds"]).map(|field| (field.to_owned(), Value::Null));
    let (status, nothing) = submit(&pod.public, &Value::Object(body.collect())).await;
    assert_eq!((status, &nothing["kind"], &nothing["max_attempts"]), (202, &json!("sleep"), &json!(3)));
    assert_eq!(submit(&pod.public, &json!({"priority": 3.0})).await.1["priority"], 3, "as whole as 3");
}

#[tokio::test]
async fn a_task_waits_for_the_later_of_its_two_times() {
    let (pod, _held) = held().await;
    let later = "2999-01-01T00:00:00Z";
    for (body, due) in [
        (json!({"not_before": later}), "2999-01-01T00:00:0"),
        (json!({"not_before": "2999-01-01T02:00:00+02:00", "delay_seconds": 60}), "2999-01-01T00:00:0"),
        (json!({"not_before": "9999-12-31T23:59:59Z"}), "9999-12-30T22:00:0"),
    ] {
        let id = take(&pod.public, &body).await;
        let (_, task) = json(&pod.public, "GET", &format!("/v1/tasks/{id}")).await;
        assert!(task["due_at"].as_str().unwrap().starts_with(due), "{body}: {task}");
    }
    let waits =
        take(&pod.public, &json!({"not_before": "1999-01-01T00:00:00Z", "delay_seconds": 3600})).await;
    let task = pod.in_state(waits, State::Queued).await;
    assert!((3_600_000..3_700_000).contains(&(task.due - task.created)), "{task:?}");
    let past = take(&pod.public, &json!({"not_before": "1999-01-01T00:00:00Z"})).await;
    pod.in_state(past, State::Running).await;
}

#[tokio::test]
async fn the_same_key_with_the_same_content_is_the_same_task() {
    let (pod, _held) = held().await;
    let body = r#"{"kind": "sleep", "input": {"seconds": 3}, "delay_seconds": 5}"#;
    let (status, headers, first) =
        send(&pod.public, "/v1/tasks", &[JSON, ("idempotency-key", "a")], body).await;
    assert_eq!((status, headers.contains_key("idempotency-replayed")), (202, false));
    let again = r#"{"delay_seconds":5,"input":{"seconds":3},"kind":"sleep"}"#;
    let (status, headers, second) =
        send(&pod.public, "/v1/tasks", &[JSON, ("idempotency-key", "\"a\"")], again).await;
    assert_eq!((status, &second["id"]), (200, &first["id"]), "quoted, as the draft has it, or not");
    assert_eq!(headers["idempotency-replayed"], "true");
    assert_eq!(
        headers[header::LOCATION].to_str().unwrap(),
        format!("/v1/tasks/{}", first["id"].as_str().unwrap())
    );
    assert_eq!(json(&pod.public, "GET", "/v1/get_queue_length").await.1, json!({"task_lenth": 1}));

    let other = r#"{"kind": "sleep", "input": {"seconds": 4}, "delay_seconds": 5}"#;
    let (status, _, problem) = send(&pod.public, "/v1/tasks", &[JSON, ("idempotency-key", "a")], other).await;
    assert_eq!((status, &problem["field"]), (422, &json!("Idempotency-Key")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(first["id"].as_str().unwrap()));
    assert_eq!(json(&pod.public, "GET", "/v1/get_queue_length").await.1, json!({"task_lenth": 1}));
}

#[tokio::test]
async fn the_seeds_route_takes_keys_and_is_a_submission_of_nothing() {
    let (pod, _held) = held().await;
    let key: Headers<'_> = &[("idempotency-key", "seed-1")];
    let (status, headers, first) = send(&pod.public, "/v1/create-task/", key, "").await;
    assert_eq!((status, headers.contains_key("idempotency-replayed")), (200, false));
    let (status, headers, second) = send(&pod.public, "/v1/create-task", key, "ignored").await;
    assert_eq!((status, &second), (200, &first));
    assert_eq!(headers["idempotency-replayed"], "true");
    let (status, _, third) = send(&pod.public, "/v1/tasks", &[JSON, key[0]], "{}").await;
    assert_eq!((status, &third["id"]), (200, &first["task_id"]));
    let (status, _, _) = send(&pod.public, "/v1/tasks", &[JSON, key[0]], r#"{"priority": 1}"#).await;
    assert_eq!(status, 422);
    for bad in ["", "a b", "\"", &"x".repeat(256)] {
        for path in ["/v1/create-task/", "/v1/tasks"] {
            let (status, _, problem) = send(&pod.public, path, &[JSON, ("idempotency-key", bad)], "{}").await;
            assert_eq!((status, &problem["field"]), (400, &json!("Idempotency-Key")), "{bad}");
        }
    }
}

#[tokio::test]
async fn tasks_are_listed_newest_first_by_pages_and_filters() {
    let (pod, _held) = held().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let client = if n % 2 == 0 { "even" } else { "odd" };
        let task =
            take(&pod.public, &json!({"client_id": client, "delay_seconds": f64::from(n > 0) * 3600.0}))
                .await;
        ids.push(task);
    }
    pod.in_state(ids[0], State::Running).await;
    let list = async |query: &str| {
        let (status, page) = json(&pod.public, "GET", &format!("/v1/tasks{query}")).await;
        assert_eq!(status, 200, "{page}");
        let ids = page["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|task| task["id"].as_str().unwrap().parse().unwrap());
        (ids.collect::<Vec<Uuid>>(), page["next"].as_str().map(str::to_owned))
    };
    let newest = |of: &[usize]| of.iter().map(|n| ids[*n]).collect::<Vec<_>>();
    assert_eq!(list("").await, (newest(&[4, 3, 2, 1, 0]), None));
    assert_eq!(list("?state=running").await.0, newest(&[0]));
    assert_eq!(list("?state=queued,running&client_id=even").await.0, newest(&[4, 2, 0]));
    assert_eq!(list("?state=dead").await.0, newest(&[]));
    assert_eq!(list("?kind=nothing").await.0, newest(&[]));
    let (mut seen, mut query) = (Vec::new(), "?limit=2".to_owned());
    loop {
        let (page, next) = list(&query).await;
        assert!(page.len() <= 2);
        seen.extend(page);
        let Some(next) = next else { break };
        query = format!("?limit=2&cursor={next}");
    }
    assert_eq!(seen, newest(&[4, 3, 2, 1, 0]), "each once");
    for (query, field) in
        [("?stat=queued", "stat"), ("?limit=0", "limit"), ("?state=done", "state"), ("?cursor=1", "cursor")]
    {
        let (status, problem) = json(&pod.public, "GET", &format!("/v1/tasks{query}")).await;
        assert_eq!((status, &problem["field"]), (400, &json!(field)), "{query}");
    }
}

#[tokio::test]
async fn a_task_is_cancelled_at_once_or_asked_to_stop_or_it_is_too_late() {
    let (pod, _held) = held().await;
    let runs = take(&pod.public, &json!({})).await;
    pod.in_state(runs, State::Running).await;
    let waits = take(&pod.public, &json!({})).await;
    let cancel = async |id: Uuid| {
        let (status, _, body) = send(&pod.public, &format!("/v1/tasks/{id}/cancel"), &[], "").await;
        (status, body)
    };
    let (status, task) = cancel(waits).await;
    assert_eq!((status, &task["state"]), (200, &json!("cancelled")));
    assert_eq!(task["message"], format!("Task {waits} cancelled"));
    let metrics = ask(&pod.admin, "GET", "/metrics").await.2;
    let counted = "graceful_server_tasks_finished_total{outcome=\"cancelled\"} 1";
    assert!(metrics.lines().any(|line| line == counted), "the one that waited: {metrics}");
    let (status, task) = cancel(runs).await;
    assert_eq!((status, &task["state"], &task["cancel_requested"]), (202, &json!("running"), &json!(true)));
    assert_eq!(pod.ended(runs).await.state, State::Cancelled);
    let (status, problem) = cancel(runs).await;
    assert_eq!(status, 409);
    assert!(problem["detail"].as_str().unwrap().contains("is cancelled"), "{problem}");
    let missing = (404, json!({"detail": "Task not found"}));
    assert_eq!(cancel(Uuid::nil()).await, missing);
    assert_eq!(json(&pod.public, "POST", "/v1/tasks/nonsense/cancel").await, missing);
}

/// Gives up at first, and does it when it is tried again.
struct Fickle;

impl Kind for Fickle {
    const NAME: &'static str = "sleep";
    type Input = Value;
    type Output = Value;

    async fn run(&self, input: Value, task: &Running) -> Result<Value, Failure> {
        if task.attempt() == 1 { Err(Failure::fatal("not today")) } else { Ok(input) }
    }
}

#[tokio::test]
async fn a_dead_task_is_tried_again_and_no_other() {
    let pod = Plan::of(Fickle).pod().await;
    let id = take(&pod.public, &json!({"input": ["x", 1.50]})).await;
    assert_eq!(pod.ended(id).await.state, State::Dead);
    let path = format!("/v1/tasks/{id}");
    let (_, dead) = json(&pod.public, "GET", &path).await;
    assert_eq!((&dead["state"], &dead["error"]), (&json!("dead"), &json!("not today")));
    assert_eq!(dead["message"], format!("Task {id} dead"));
    let retry = format!("{path}/retry");
    let (status, again) = json(&pod.public, "POST", &retry).await;
    assert_eq!((status, &again["id"], &again["state"]), (202, &dead["id"], &json!("queued")));
    pod.in_state(id, State::Succeeded).await;
    let (_, done) = json(&pod.public, "GET", &path).await;
    assert_eq!((&done["attempt"], &done["output"]), (&json!(2), &json!(["x", 1.50])));
    let (status, problem) = json(&pod.public, "POST", &retry).await;
    assert_eq!((status, &problem["title"]), (409, &json!("The task is in another state")));
    let missing = json(&pod.public, "POST", &format!("/v1/tasks/{}/retry", Uuid::nil())).await;
    assert_eq!(missing, (404, json!({"detail": "Task not found"})));
}

#[tokio::test]
async fn a_field_that_is_wrong_is_named_with_what_to_write() {
    let pod = Plan::of(Sleep { task_seconds: "0".parse().unwrap() }).pod().await;
    for (body, field, said) in [
        (json!({"kind": "slep"}), "kind", "there is no kind `slep`; write one of sleep"),
        (json!({"kind": 7}), "kind", "GET /v1/kinds lists them"),
        (json!({"priority": 40_000}), "priority", "write a whole number from -32768 to 32767"),
        (json!({"priority": 1.5}), "priority", "write a whole number"),
        (json!({"priority": "high"}), "priority", "write a whole number"),
        (json!({"delay_seconds": -1}), "delay_seconds", "write a number of seconds from 0"),
        (json!({"not_before": "tomorrow"}), "not_before", "write a time as 2026-11-22T20:48:00Z"),
        (json!({"not_before": 5}), "not_before", "write a time"),
        (json!({"timeout_seconds": 0}), "timeout_seconds", "from 0.001 to 604800"),
        (json!({"max_attempts": 0}), "max_attempts", "from 1 to 100"),
        (json!({"max_attempts": 101}), "max_attempts", "from 1 to 100"),
        (json!({"keep_seconds": 1e9}), "keep_seconds", "from 0 to 7776000"),
        (json!({"client_id": ""}), "client_id", "1 to 128 characters"),
        (json!({"client_id": "a\u{0}"}), "client_id", "without control characters"),
        (json!({"client_id": "x".repeat(129)}), "client_id", "1 to 128 characters"),
        (json!({"priorty": 1}), "priorty", "is no field of a task; write one of kind, input, queue"),
        (json!({"input": {"seconds": "3"}}), "input.seconds", "expected f64"),
        (json!({"input": {"seconds": -3}}), "input.seconds", "write a number from 0 to 86400"),
        (json!({"input": {"second": 3}}), "input.second", "unknown field"),
        (json!({"input": 3}), "input", "invalid type"),
    ] {
        let problem = refused(&pod.public, &body).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(problem["field"] == field && detail.contains(said), "{body}: {problem}");
        assert!(detail.starts_with(field), "{detail}");
    }
    assert_eq!(json(&pod.public, "GET", "/v1/tasks").await.1["tasks"], json!([]), "nothing was accepted");
}

#[tokio::test]
async fn a_body_that_is_no_object_is_told_so() {
    let (pod, _held) = held().await;
    for (body, said) in [
        ("", "the body is empty; write a JSON object, at least {}"),
        (" ", "the body is empty"),
        ("{", "the body is not JSON: EOF"),
        ("{\"kind\": sleep}", "line 1 column 10"),
        ("[]", "write a JSON object"),
        ("{}{}", "trailing characters"),
        ("{\"kind\": \"sleep\", \"kind\": \"sleep\"}", "duplicate field `kind`"),
    ] {
        let (status, _, problem) = send(&pod.public, "/v1/tasks", &[JSON], body).await;
        assert!(status == 400 && problem["detail"].as_str().unwrap().contains(said), "{body}: {problem}");
    }
    let (status, _, _) = send(&pod.public, "/v1/tasks", &[JSON], b"{\"client_id\": \"\xff\"}".to_vec()).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn a_body_must_be_json_and_small() {
    let (pod, _held) = held().await;
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let (status, _, problem) = send(&pod.public, "/v1/tasks", &[("content-type", kind)], "{}").await;
        assert_eq!((status, &problem["field"]), (415, &json!("Content-Type")));
    }
    assert_eq!(send(&pod.public, "/v1/tasks", &[], "{}").await.0, 415);
    let utf8 = ("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(send(&pod.public, "/v1/tasks", &[utf8], "{}").await.0, 202);

    let large = format!("{{\"client_id\": \"a\"{}}}", " ".repeat(256 * 1024));
    let (status, _, problem) = send(&pod.public, "/v1/tasks", &[JSON], large.clone()).await;
    assert_eq!((status, &problem["title"]), (413, &json!("The body is too large")));
    let announced = large.len().to_string();
    let never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let (status, _, _) = send(&pod.public, "/v1/tasks", &[JSON, ("content-length", &announced)], never).await;
    assert_eq!(status, 413, "before it is sent");
    let fits = format!("{{\"client_id\": \"a\"{}}}", " ".repeat(256 * 1024 - 18));
    assert_eq!(send(&pod.public, "/v1/tasks", &[JSON], fits).await.0, 202);
}

#[tokio::test]
async fn what_is_not_there_is_said_in_the_seeds_words_with_what_is() {
    let (pod, _held) = held().await;
    for path in ["/v1", "/v1/task", "/v1/tasks/", "/v1/tasks/x/y"] {
        let (status, headers, body) = ask(&pod.public, "GET", path).await;
        assert_eq!((status.as_u16(), body.as_str()), (404, r#"{"detail":"Not Found"}"#), "{path}");
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
    }
    for (method, path, allow) in [
        ("DELETE", "/v1/tasks", "GET,HEAD,POST"),
        ("PUT", "/v1/tasks/x", "DELETE,GET,HEAD"),
        ("GET", "/v1/tasks/x/cancel", "POST"),
        ("GET", "/v1/tasks/x/retry", "POST"),
        ("GET", "/v1/create-task/", "POST"),
        ("POST", "/v1/queue", "GET,HEAD"),
        ("PATCH", "/v1/health", "GET,HEAD"),
    ] {
        let (status, headers, body) = ask(&pod.public, method, path).await;
        assert_eq!(
            (status.as_u16(), body.as_str()),
            (405, r#"{"detail":"Method Not Allowed"}"#),
            "{method} {path}"
        );
        let mut allowed: Vec<_> = headers[header::ALLOW].to_str().unwrap().split(',').collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow, "{method} {path}");
    }
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back_and_takes_nothing() {
    let held = Held::default();
    let pod = Plan { capacity: 1, concurrency: 1, ..Plan::of(held.clone()) }.pod().await;
    let first = take(&pod.public, &json!({})).await;
    pod.in_state(first, State::Running).await;
    let second = take(&pod.public, &json!({})).await;
    for path in ["/v1/tasks", "/v1/create-task/"] {
        let (status, headers, body) = send(&pod.public, path, &[JSON, ("idempotency-key", "k")], "{}").await;
        assert_eq!((status, body), (429, json!({"detail": "The queue is full"})));
        assert_eq!(headers[header::RETRY_AFTER], "1");
    }
    assert_eq!(json(&pod.public, "GET", "/v1/get_queue_length").await.1, json!({"task_lenth": 2}));
    held.let_go(2);
    pod.ended(second).await;
    let (status, headers, _) = send(&pod.public, "/v1/tasks", &[JSON, ("idempotency-key", "k")], "{}").await;
    assert_eq!((status, headers.contains_key("idempotency-replayed")), (202, false), "the key is still free");
}

#[tokio::test]
async fn a_queue_that_is_not_open_is_said_so_everywhere() {
    let drain = Drain::new(Settings::default());
    let never: Opener =
        Box::new(|| Box::pin(async { Err(OpenError::Engine { detail: "secret host".to_owned() }) }));
    let queue = Queue::keep(never, true, drain.clone(), Arc::default(), None);
    let (public, _) = pod::routes(drain, queue);
    let id = Uuid::nil();
    for (method, path) in [
        ("POST", "/v1/tasks".to_owned()),
        ("POST", "/v1/create-task/".to_owned()),
        ("GET", "/v1/tasks".to_owned()),
        ("GET", format!("/v1/tasks/{id}")),
        ("POST", format!("/v1/tasks/{id}/cancel")),
        ("POST", format!("/v1/tasks/{id}/retry")),
        ("GET", "/v1/queue".to_owned()),
        ("GET", "/v1/get_queue_length/".to_owned()),
    ] {
        let request = Request::builder().method(method).uri(&path).header("content-type", "application/json");
        let response = public.clone().oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[header::RETRY_AFTER]),
            (503, &"5".parse().unwrap()),
            "{path}"
        );
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&problem["reason"], &problem["status"]), (&json!("closed"), &json!(503)), "{path}");
        assert!(!problem.to_string().contains("secret"), "the engine's words stay in the log");
    }
    assert_eq!(json(&public, "GET", "/v1/kinds").await.0, 200);
    assert_eq!(json(&public, "GET", "/v1/health").await.0, 200);
}

#[tokio::test]
async fn a_draining_pod_takes_nothing_new_and_lets_one_look_and_cancel() {
    let pod = Plan::of(Fickle).pod().await;
    let dead = take(&pod.public, &json!({})).await;
    pod.in_state(dead, State::Dead).await;
    let waits = take(&pod.public, &json!({"delay_seconds": 3600})).await;
    let status = pod.drain.start(1, Duration::ZERO).unwrap();
    let scheduled = status.scheduled.expect("a drain says that it waits for a time");
    let away = scheduled.next.duration_since(jiff::Timestamp::now()).as_secs();
    assert!(scheduled.tasks == 1 && (3500..=3600).contains(&away), "{scheduled:?}");
    let retry = format!("/v1/tasks/{dead}/retry");
    for path in ["/v1/tasks", "/v1/create-task/", &retry] {
        let (status, headers, body) = send(&pod.public, path, &[JSON], "{}").await;
        assert_eq!((status, body), (503, json!({"detail": "Service Under Graceful Shutdown"})), "{path}");
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
        assert!(headers.contains_key(header::RETRY_AFTER), "{path}");
    }
    for path in ["/v1/tasks", "/v1/queue", "/v1/kinds", &format!("/v1/tasks/{dead}")] {
        assert_eq!(json(&pod.public, "GET", path).await.0, 200, "{path}");
    }
    assert_eq!(json(&pod.public, "GET", "/v1/create-task/").await.0, 405, "a mistake is told as one");
    assert_eq!(json(&pod.public, "POST", &format!("/v1/tasks/{waits}/cancel")).await.0, 200);
    pod.drain.idle().await;
    assert_eq!(pod.drain.status().scheduled, None);
}

#[tokio::test]
async fn the_trace_of_a_request_goes_with_its_task() {
    // A pod without a runner: the test claims.
    let (folder, drain) = (pod::Folder::new(), Drain::new(Settings::default()));
    let settings = pod::store_settings(100, vec!["sleep".to_owned()]);
    let queue = Queue::open(
        graceful_server::engine::Engine::Sqlite(folder.0.clone()),
        settings,
        drain.clone(),
        Arc::default(),
    );
    let store = queue.opened().await;
    let (public, _) = pod::routes(drain, queue);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (path, sent, kept) in [
        ("/v1/tasks", trace, Some(trace)),
        ("/v1/create-task/", trace, Some(trace)),
        ("/v1/tasks", "00-nonsense", None),
    ] {
        let (status, _, told) = send(&public, path, &[JSON, ("traceparent", sent)], "{}").await;
        assert!(status < 300, "{told}");
        let claims = store.claim(1).await.unwrap();
        assert_eq!(claims[0].trace.as_deref(), kept, "{path}");
    }
}

#[tokio::test]
async fn the_queue_is_counted_and_the_kinds_are_listed() {
    let pod = Plan { concurrency: 1, ..Plan::of(Fickle) }.pod().await;
    let dead = take(&pod.public, &json!({})).await;
    pod.in_state(dead, State::Dead).await;
    take(&pod.public, &json!({"delay_seconds": 3600})).await;
    let counted = json!({"queued": 0, "delayed": 1, "running": 0, "dead": 1, "shared": false});
    let asking = async {
        // Counts may be a second old.
        while json(&pod.public, "GET", "/v1/queue").await != (200, counted.clone()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(pod::TIMEOUT, asking).await.unwrap();
    assert_eq!(
        json(&pod.public, "GET", "/v1/kinds").await,
        (200, json!({"kinds": [{"name": "sleep", "input": true}]}))
    );
}

#[tokio::test]
async fn submissions_are_counted_by_what_became_of_them() {
    let (pod, _held) = held().await;
    take(&pod.public, &json!({})).await;
    refused(&pod.public, &json!({"kind": "x"})).await;
    send(&pod.public, "/v1/create-task/", &[("idempotency-key", "")], "").await;
    let metrics = ask(&pod.admin, "GET", "/metrics").await.2;
    for line in [
        "graceful_server_tasks_accepted_total 1",
        "graceful_server_requests_refused_total{reason=\"invalid\"} 2",
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line} is not in\n{metrics}");
    }
}
