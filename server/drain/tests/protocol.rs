//! `/drain` over HTTP, as `docs/protocol.md` promises it.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use graceful_drain::{Drain, Scheduled, Settings};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceExt;

fn pod() -> (Drain, Router) {
    let drain = Drain::new(Settings { pod_uid: "uid-1".to_owned(), ..Settings::default() });
    let routes = drain.routes();
    (drain, routes)
}

async fn ask(routes: &Router, request: Request<Body>) -> (StatusCode, HeaderMap, Value) {
    let (parts, body) = routes.clone().oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, 64 * 1024).await.unwrap();
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    (parts.status, parts.headers, json)
}

async fn get(routes: &Router) -> (StatusCode, HeaderMap, Value) {
    ask(routes, Request::get("/drain").body(Body::empty()).unwrap()).await
}

async fn put(routes: &Router, body: impl ToString) -> (StatusCode, Value) {
    let (status, _, body) = ask(routes, Request::put("/drain").body(body.to_string().into()).unwrap()).await;
    (status, body)
}

async fn delete(routes: &Router, query: &str) -> (StatusCode, Value) {
    let request = Request::delete(format!("/drain{query}")).body(Body::empty()).unwrap();
    let (status, _, body) = ask(routes, request).await;
    (status, body)
}

async fn poll(routes: &Router, etag: &str, prefer: &str) -> (StatusCode, HeaderMap, Value) {
    let request = Request::get("/drain").header("if-none-match", etag).header("prefer", prefer);
    ask(routes, request.body(Body::empty()).unwrap()).await
}

fn etag(headers: &HeaderMap) -> String {
    headers[header::ETAG].to_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_drain_goes_through_its_states_and_back() {
    let (drain, routes) = pod();
    let (status, _, body) = get(&routes).await;
    let expected = json!({
        "protocol": "v1", "podUid": "uid-1", "bootId": drain.boot_id(), "state": "Serving", "accepting": true,
        "epoch": 0, "inFlight": {"total": 0, "queued": 0, "running": 0, "requests": 0}, "connections": 0,
        "oldestSeconds": 0, "resumable": true,
    });
    assert_eq!((status, body), (StatusCode::OK, expected));

    let mut task = drain.try_task().unwrap();
    task.start();
    let (status, body) = put(&routes, json!({"epoch": 7, "lingerSeconds": 3})).await;
    assert_eq!(
        (status, &body["state"], &body["accepting"]),
        (StatusCode::ACCEPTED, &json!("Lingering"), &json!(true))
    );
    tokio::time::advance(Duration::from_secs(3)).await;
    let (_, _, body) = get(&routes).await;
    assert_eq!((&body["state"], &body["accepting"]), (&json!("Draining"), &json!(false)));
    assert_eq!((&body["epoch"], &body["oldestSeconds"]), (&json!(7), &json!(3)));
    assert_eq!(body["inFlight"], json!({"total": 1, "queued": 0, "running": 1, "requests": 0}));
    drop(task);
    assert_eq!(get(&routes).await.2["state"], "Idle");
    let (status, body) = delete(&routes, "?epoch=8").await;
    assert_eq!((status, &body["state"], &body["epoch"]), (StatusCode::OK, &json!("Serving"), &json!(8)));
}

#[tokio::test]
async fn epochs_only_go_up() {
    let (_drain, routes) = pod();
    let code = async |epoch: u64| put(&routes, json!({"epoch": epoch, "lingerSeconds": 0})).await.0.as_u16();
    assert_eq!(code(7).await, 202);
    assert_eq!(code(7).await, 202, "a retry");
    assert_eq!(code(6).await, 409);
    assert_eq!(delete(&routes, "?epoch=7").await.0.as_u16(), 409, "a resume needs an epoch of its own");
    assert_eq!(delete(&routes, "?epoch=8").await.0.as_u16(), 200);
    assert_eq!(delete(&routes, "?epoch=8").await.0.as_u16(), 200, "a retry");
    assert_eq!(code(8).await, 409, "the resume's epoch");
    assert_eq!(code((1 << 53) - 1).await, 202);
    let (status, body) = put(&routes, json!({"epoch": 9})).await;
    assert_eq!((status, &body["field"]), (StatusCode::CONFLICT, &json!("epoch")));
    assert!(body["detail"].as_str().unwrap().contains("9007199254740991"), "{body}");
}

/// Keeps P2.
#[tokio::test]
async fn sigterm_cannot_be_resumed() {
    let (drain, routes) = pod();
    drain.terminate(Duration::ZERO);
    assert_eq!(delete(&routes, "?epoch=1").await.0, StatusCode::CONFLICT);
    let body = get(&routes).await.2;
    assert_eq!((&body["state"], &body["resumable"]), (&json!("Terminating"), &json!(false)));
    assert_eq!(
        put(&routes, json!({"epoch": 1})).await.0,
        StatusCode::ACCEPTED,
        "the epoch can still be told"
    );
}

#[tokio::test]
async fn a_bad_body_is_refused_and_its_field_named() {
    let (drain, routes) = pod();
    for (body, code, field) in [
        ("", 400, Value::Null),
        ("{", 400, Value::Null),
        ("[]", 422, Value::Null),
        ("{}", 422, json!("epoch")),
        (r#"{"epoch": "7"}"#, 422, json!("epoch")),
        (r#"{"epoch": 0}"#, 422, json!("epoch")),
        (r#"{"epoch": -1}"#, 422, json!("epoch")),
        (r#"{"epoch": 1.5}"#, 422, json!("epoch")),
        (r#"{"epoch": null}"#, 422, json!("epoch")),
        (r#"{"epoch": 9007199254740992}"#, 422, json!("epoch")),
        (r#"{"epoch": 1e308}"#, 422, json!("epoch")),
        (r#"{"epoch": 7, "lingerSeconds": -1}"#, 422, json!("lingerSeconds")),
        (r#"{"epoch": 7, "lingerSeconds": "3"}"#, 422, json!("lingerSeconds")),
        (r#"{"epoch": 7, "lingerSeconds": 3601}"#, 422, json!("lingerSeconds")),
    ] {
        let (status, answer) = put(&routes, body).await;
        assert_eq!((status.as_u16(), &answer["field"]), (code, &field), "{body}: {answer}");
        assert!(answer["detail"].as_str().unwrap().len() > 10);
    }
    for query in ["", "?epoch=", "?epoch=x", "?epoch=0", "?epoch=9007199254740992", "?other=1"] {
        let (status, answer) = delete(&routes, query).await;
        assert_eq!((status.as_u16(), &answer["field"]), (422, &json!("epoch")), "{query}");
    }
    let (status, answer) = put(&routes, "x".repeat(5000)).await;
    assert_eq!((status, &answer["status"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!(413)), "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("4096"), "{answer}");
    assert_eq!(drain.status().epoch, 0, "none of them changed anything");
}

#[tokio::test]
async fn a_field_of_a_later_version_is_no_error() {
    let (_drain, routes) = pod();
    assert_eq!(put(&routes, json!({"epoch": 1, "reason": "Rollout"})).await.0, StatusCode::ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn a_poll_is_held_until_something_changes() {
    let (drain, routes) = pod();
    let task = drain.try_task().unwrap();
    drain.start(1, Duration::ZERO).unwrap();
    let known = etag(&get(&routes).await.1);
    let started = Instant::now();
    let waiting: Vec<_> = (0..500)
        .map(|_| {
            let (routes, known) = (routes.clone(), known.clone());
            tokio::spawn(async move { poll(&routes, &known, "wait=30").await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(7)).await;
    drop(task);
    for waiting in waiting {
        let (status, headers, body) = waiting.await.unwrap();
        assert_eq!((status, &body["state"]), (StatusCode::OK, &json!("Idle")));
        assert_eq!(headers["preference-applied"], "wait=30");
        assert_ne!(etag(&headers), known);
    }
    assert_eq!(started.elapsed(), Duration::from_secs(7), "at once, not at the end of the wait");
}

#[tokio::test(start_paused = true)]
async fn a_poll_wakes_when_the_linger_ends_by_itself() {
    let (drain, routes) = pod();
    drain.start(1, Duration::from_secs(3)).unwrap();
    let known = etag(&get(&routes).await.1);
    let started = Instant::now();
    let (status, _, body) = poll(&routes, &known, "wait=30").await;
    assert_eq!((status, &body["state"]), (StatusCode::OK, &json!("Idle")));
    assert!((3.0..3.1).contains(&started.elapsed().as_secs_f64()), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_poll_without_news_ends_with_304_in_bounded_time() {
    let (drain, routes) = pod();
    let known = etag(&get(&routes).await.1);
    for (prefer, held, applied) in [
        ("wait=30", 30, Some("wait=30")),
        ("respond-async, WAIT = \"5\"", 5, Some("wait=5")),
        ("wait=100000", 300, Some("wait=300")),
        ("wait=soon", 0, None),
        ("handling=lenient", 0, None),
    ] {
        let started = Instant::now();
        let (status, headers, _) = poll(&routes, &known, prefer).await;
        assert_eq!((status, etag(&headers)), (StatusCode::NOT_MODIFIED, known.clone()), "{prefer}");
        assert_eq!(started.elapsed().as_secs(), held, "{prefer}");
        assert_eq!(
            headers.get("preference-applied").map(|value| value.to_str().unwrap()),
            applied,
            "{prefer}"
        );
    }
    let (status, ..) = poll(&routes, "\"other\"", "wait=30").await;
    assert_eq!(status, StatusCode::OK, "what is not known is answered at once");
    let strong = format!("\"other\", {}", known.trim_start_matches("W/"));
    assert_eq!(
        poll(&routes, &strong, "wait=0").await.0,
        StatusCode::NOT_MODIFIED,
        "compared weakly, from a list"
    );
    drop(drain);
}

fn scheduled() -> Scheduled {
    Scheduled { tasks: 2, next: "2026-11-26T16:30:00Z".parse().unwrap() }
}

#[tokio::test(start_paused = true)]
async fn age_and_sockets_wake_nobody_but_every_count_does() {
    let (drain, routes) = pod();
    let task = drain.try_task().unwrap();
    let before = etag(&get(&routes).await.1);
    let socket = drain.connection();
    drain.set_shared_queued(17);
    drain.set_scheduled(Some(scheduled()));
    tokio::time::advance(Duration::from_secs(90)).await;
    let (_, headers, body) = get(&routes).await;
    assert_eq!((&body["connections"], &body["oldestSeconds"]), (&json!(1), &json!(90)));
    assert_eq!(body["shared"], json!({"queued": 17}));
    assert_eq!(body["scheduled"], json!({"tasks": 2, "next": "2026-11-26T16:30:00Z"}));
    assert_eq!(etag(&headers), before);
    let mut seen = vec![before];
    let mut expect_new = async |what: &str| {
        let tag = etag(&get(&routes).await.1);
        assert!(!seen.contains(&tag), "{what}: {tag}");
        seen.push(tag);
    };
    let mut task = task;
    task.start();
    expect_new("queued -> running").await;
    let request = drain.try_request().unwrap();
    expect_new("a request").await;
    drop(task);
    expect_new("an end").await;
    drain.set_tasks(2, 0);
    expect_new("a task of the queue's own").await;
    drain.set_tasks(1, 1);
    expect_new("it runs").await;
    drain.set_tasks(0, 0);
    drain.start(1, Duration::ZERO).unwrap();
    expect_new("a drain").await;
    drain.start(2, Duration::ZERO).unwrap();
    expect_new("an epoch").await;
    drop(request);
    expect_new("idle").await;
    drain.terminate(Duration::ZERO);
    expect_new("SIGTERM").await;
    drop(socket);
}

#[tokio::test]
async fn a_layer_can_guard_the_writes_alone() {
    let (drain, _) = pod();
    let deny = axum::middleware::from_fn(async |_: axum::extract::Request, _: axum::middleware::Next| {
        StatusCode::UNAUTHORIZED
    });
    let routes = drain.read_routes().merge(drain.write_routes().layer(deny));
    assert_eq!(put(&routes, json!({"epoch": 1})).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(delete(&routes, "?epoch=1").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(get(&routes).await.0, StatusCode::OK);
}

/// The part of JSON Schema that our schema uses; an unknown keyword fails the test rather than pass unread.
fn check(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    for (keyword, rule) in schema.as_object().unwrap() {
        let holds = match keyword.as_str() {
            "$schema" | "$id" | "title" | "description" => true,
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_u64() || value.is_i64(),
                other => return Err(format!("type {other}: teach this test")),
            },
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.as_f64() >= rule.as_f64(),
            "maximum" => value.as_f64() <= rule.as_f64(),
            "format" => match rule.as_str().unwrap() {
                "date-time" => value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()),
                other => return Err(format!("format {other}: teach this test")),
            },
            "minLength" => value.as_str().unwrap().len() as u64 >= rule.as_u64().unwrap(),
            "required" => {
                rule.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "properties" => {
                let rules = rule.as_object().unwrap();
                for (name, inner) in value.as_object().unwrap() {
                    let rule =
                        rules.get(name).ok_or(format!("{at}/{name} is answered but not in the schema"))?;
                    check(rule, inner, &format!("{at}/{name}"))?;
                }
                true
            }
            other => return Err(format!("keyword {other}: teach this test")),
        };
        if !holds {
            return Err(format!("{at}: {value} breaks {keyword}: {rule}"));
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_schema_describes_every_answer_in_full() {
    let schema: Value = serde_json::from_str(include_str!("../../../docs/drain-status.schema.json")).unwrap();
    let (drain, routes) = pod();
    let task = drain.try_task().unwrap();
    let mut answers = vec![get(&routes).await.2];
    answers.push(put(&routes, json!({"epoch": (1_u64 << 53) - 3, "lingerSeconds": 3})).await.1);
    tokio::time::advance(Duration::from_secs(3)).await;
    answers.push(get(&routes).await.2);
    drop(task);
    answers.push(get(&routes).await.2);
    drain.set_shared_queued(17);
    drain.set_scheduled(Some(scheduled()));
    answers.push(delete(&routes, &format!("?epoch={}", (1_u64 << 53) - 2)).await.1);
    drain.behind().unknown("nobody was asked yet");
    drain.terminate(Duration::ZERO);
    answers.push(get(&routes).await.2);
    assert_eq!(answers[5]["unknown"], "nobody was asked yet");
    let states: Vec<_> = answers.iter().map(|answer| answer["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["Serving", "Lingering", "Draining", "Idle", "Serving", "Terminating"]);
    for answer in &answers {
        check(&schema, answer, "").unwrap();
        for required in schema["required"].as_array().unwrap() {
            let mut without = answer.clone();
            without.as_object_mut().unwrap().remove(required.as_str().unwrap());
            assert!(check(&schema, &without, "").is_err(), "{required} can be left out");
        }
    }
}
