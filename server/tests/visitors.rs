//! Pages of other sites, and names that are pointed here: what a browser lets them do, and what we do.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod pod;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use graceful_server::events::hub::HubSettings;
use pod::{Held, Plan, Pod};
use tower::ServiceExt;

async fn pod(origins: &str) -> Pod {
    let listening = HubSettings { origins: origins.parse().unwrap(), ..HubSettings::default() };
    Plan { listening, ..Plan::of(Held::default()) }.pod().await
}

async fn ask(app: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    (answer.status().as_u16(), answer.headers().clone())
}

const OWN: (&str, &str) = ("host", "localhost:8000");
const EVIL: (&str, &str) = ("origin", "https://evil.example");

#[tokio::test]
async fn pages_of_other_sites_submit_nothing() {
    let pod = pod("").await;
    // What a form, or a fetch with `no-cors`, sends without asking.
    let plain = ("content-type", "text/plain");
    for headers in [
        &[OWN, EVIL, plain][..],
        &[OWN, ("origin", "null"), plain],
        &[OWN, ("sec-fetch-site", "cross-site"), plain],
        &[OWN, ("sec-fetch-site", "same-site"), plain],
        &[OWN, EVIL, ("sec-fetch-site", "cross-site"), plain],
    ] {
        for path in ["/v1/create-task/", "/v1/tasks"] {
            assert_eq!(ask(&pod.public, "POST", path, headers).await.0, 403, "{path} {headers:?}");
        }
        assert_eq!(ask(&pod.admin, "PUT", "/drain", headers).await.0, 403, "{headers:?}");
    }
    assert_eq!(pod.queue.counts().await.unwrap().queued + pod.drain.status().in_flight.total(), 0);
    for headers in [
        &[OWN][..],
        &[OWN, ("origin", "http://localhost:8000"), ("sec-fetch-site", "same-origin")],
        &[OWN, ("sec-fetch-site", "none")],
        &[("host", "inside:80"), ("origin", "https://outside"), ("sec-fetch-site", "same-origin")],
    ] {
        assert_eq!(ask(&pod.public, "POST", "/v1/create-task/", headers).await.0, 200, "{headers:?}");
    }
}

#[tokio::test]
async fn a_name_that_was_pointed_here_is_not_ours() {
    let pod = pod("").await;
    let rebound = [
        ("host", "evil.example:8000"),
        ("origin", "http://evil.example:8000"),
        ("sec-fetch-site", "same-origin"),
    ];
    for (app, method, path) in [
        (&pod.public, "POST", "/v1/create-task/"),
        (&pod.public, "GET", "/v1/tasks"),
        (&pod.public, "GET", "/ws/me"),
        (&pod.admin, "PUT", "/drain"),
        (&pod.admin, "GET", "/drain"),
    ] {
        assert_eq!(ask(app, method, path, &rebound).await.0, 421, "{method} {path}");
    }
}

#[tokio::test]
async fn a_listed_page_reads_answers_and_others_do_not() {
    let pod = pod("https://app.example").await;
    let listed = ("origin", "https://app.example");
    let asked = ("access-control-request-method", "POST");
    let (status, headers) = ask(&pod.public, "OPTIONS", "/v1/tasks", &[OWN, listed, asked]).await;
    assert_eq!((status, &headers["access-control-allow-origin"]), (204, &listed.1.parse().unwrap()));
    for wanted in ["content-type", "idempotency-key"] {
        assert!(headers["access-control-allow-headers"].to_str().unwrap().contains(wanted));
    }
    for wanted in ["GET", "POST", "PUT", "DELETE"] {
        assert!(headers["access-control-allow-methods"].to_str().unwrap().contains(wanted), "{wanted}");
    }
    let (status, headers) = ask(&pod.public, "POST", "/v1/create-task/", &[OWN, listed]).await;
    assert_eq!((status, &headers["access-control-allow-origin"]), (200, &listed.1.parse().unwrap()));
    assert_eq!(headers["vary"], "origin");
    for (method, path) in [("GET", "/v1/tasks"), ("OPTIONS", "/v1/tasks")] {
        let (_, headers) = ask(&pod.public, method, path, &[OWN, EVIL, asked]).await;
        assert!(!headers.contains_key("access-control-allow-origin"), "{method} {path}");
    }
}

#[tokio::test]
async fn nobody_frames_the_documentation() {
    let pod = pod("").await;
    for path in ["/docs/", "/docs", "/"] {
        let (_, headers) = ask(&pod.public, "GET", path, &[OWN]).await;
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
    }
}
