//! `/drain`.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::core::Conflict;
use crate::faults::faulty;
use crate::pod::Pod;
use crate::tokens;

const LIMIT: u64 = 1 << 53;

pub(crate) fn routes(pod: &Pod) -> Router {
    Router::new().route("/drain", get(show).put(put).delete(delete)).with_state(pod.clone())
}

fn status(pod: &Pod) -> (Value, String) {
    let (boot, age) = (pod.boot(), pod.age().as_secs());
    let core = pod.core();
    let total = core.total() + u64::from(faulty("total-is-off") && core.total() > 0);
    let (requests, running, connections) = (core.requests, core.running, core.connections);
    let mut value = json!({
        "protocol": "v1", "podUid": pod.0.uid, "bootId": boot, "state": core.state(), "accepting": core.accepting(),
        "epoch": core.epoch, "inFlight": {"total": total, "queued": 0, "running": running, "requests": requests},
        "connections": connections, "oldestSeconds": age, "resumable": !core.terminating, "verifies": tokens::verifies(),
    });
    if faulty("a-field-is-missing") {
        value.as_object_mut().unwrap().remove("resumable");
    }
    let mut tag = format!("{}.{}.{}.{}", pod.0.boot, core.state(), core.accepting(), core.epoch);
    if !faulty("tag-without-counts") {
        tag += &format!(".{running}.{requests}");
    }
    if faulty("tag-with-the-age") {
        tag += &format!(".{age}");
    }
    (value, format!("W/\"{tag}\""))
}

fn answer(code: StatusCode, pod: &Pod) -> Response {
    let (value, tag) = status(pod);
    let stored = if faulty("may-be-stored") { "max-age=5" } else { "no-store" };
    (code, [(header::ETAG, tag), (header::CACHE_CONTROL, stored.to_owned())], Json(value)).into_response()
}

fn knows(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get("if-none-match").and_then(|value| value.to_str().ok()).unwrap_or_default();
    known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag.trim_start_matches("W/"))
}

async fn show(State(pod): State<Pod>, headers: HeaderMap) -> Response {
    if faulty("slow-under-load") && pod.core().total() > 50 {
        sleep(Duration::from_millis(2500)).await;
    }
    let tag = status(&pod).1;
    if !knows(&headers, &tag) || faulty("always-200") {
        return answer(StatusCode::OK, &pod);
    }
    let prefer = headers.get("prefer").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(wait) = prefer.strip_prefix("wait=").and_then(|seconds| seconds.parse::<u64>().ok()) else {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    };
    let wait = if faulty("poll-is-unbounded") { wait } else { wait.min(300) };
    let news = async {
        if faulty("poll-sleeps-on") {
            return sleep(Duration::from_secs(wait)).await;
        }
        while knows(&headers, &status(&pod).1) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let held = if faulty("poll-is-not-held") { 0 } else { wait };
    let _ = timeout(Duration::from_secs(held), news).await;
    let tag = status(&pod).1;
    let applied = [("preference-applied", format!("wait={wait}"))];
    if knows(&headers, &tag) {
        return (applied, (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)])).into_response();
    }
    (applied, answer(StatusCode::OK, &pod)).into_response()
}

fn problem(code: u16, field: Option<&str>, detail: &str) -> Response {
    let status = StatusCode::from_u16(code).unwrap();
    let mut body = json!({"title": status.canonical_reason(), "status": code, "detail": detail});
    if let Some(field) = field {
        body["field"] = json!(field);
    }
    let kind = if faulty("refusals-in-plain-json") { "application/json" } else { "application/problem+json" };
    let challenge = (code == 401).then_some([(header::WWW_AUTHENTICATE, "Bearer realm=\"drain\"")]);
    let response = (status, [(header::CONTENT_TYPE, kind)], body.to_string()).into_response();
    match challenge {
        Some(challenge) => (challenge, response).into_response(),
        None => response,
    }
}

fn conflict(conflict: &Conflict) -> Response {
    match conflict {
        Conflict::Stale => problem(409, Some("epoch"), "the epoch is at or below one that was seen"),
        Conflict::Terminating => problem(409, None, "SIGTERM has come"),
    }
}

async fn put(
    State(pod): State<Pod>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if body.len() > 4096 {
        return problem(413, None, "over 4 KiB");
    }
    let Ok(body) = serde_json::from_slice::<Value>(&body) else { return problem(400, None, "no JSON") };
    let Some(epoch) = body["epoch"].as_u64().filter(|epoch| (1..LIMIT).contains(epoch)) else {
        return problem(422, Some("epoch"), "a whole number from 1 to 2^53 - 1");
    };
    let most = if faulty("linger-is-unbounded") { u64::MAX } else { 3600 };
    let linger = match body.get("lingerSeconds") {
        None => 3,
        Some(given) => match given.as_u64().filter(|seconds| *seconds <= most) {
            Some(seconds) => seconds,
            None => return problem(422, Some("lingerSeconds"), "a whole number from 0 to 3600"),
        },
    };
    let known = |name: &String| matches!(name.as_str(), "epoch" | "lingerSeconds");
    if faulty("unknown-fields-are-refused") && !body.as_object().unwrap().keys().all(known) {
        return problem(422, None, "there are unknown fields");
    }
    if let Err(claim) = tokens::allow(&pod, peer, &headers, "drain", epoch) {
        return problem(401, claim, "it is not for you");
    }
    match pod.drain(epoch, Duration::from_secs(linger)) {
        Ok(()) => answer(if faulty("put-is-200") { StatusCode::OK } else { StatusCode::ACCEPTED }, &pod),
        Err(stale) => conflict(&stale),
    }
}

async fn delete(
    State(pod): State<Pod>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query = query.unwrap_or_default();
    let given = query.strip_prefix("epoch=").and_then(|text| text.parse::<u64>().ok());
    let given = given.filter(|epoch| (1..LIMIT).contains(epoch));
    let missing = (query.is_empty() && faulty("delete-without-an-epoch")).then(|| pod.core().epoch + 1);
    let Some(epoch) = given.or(missing) else {
        return problem(422, Some("epoch"), "a whole number from 1 to 2^53 - 1");
    };
    if let Err(claim) = tokens::allow(&pod, peer, &headers, "resume", epoch) {
        return problem(401, claim, "it is not for you");
    }
    match pod.resume(epoch) {
        Ok(()) => answer(StatusCode::OK, &pod),
        Err(refused) => conflict(&refused),
    }
}
