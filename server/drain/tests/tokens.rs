//! Who may drain, over HTTP: `docs/protocol.md`, "Tokens".
#![cfg(feature = "tokens")]
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use graceful_drain::{Drain, Keys, Settings, State, pre_stop};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceExt;

const UID: &str = "uid-1";
const ELSEWHERE: &str = "10.0.0.7:40000";

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn pod() -> (Drain, Router) {
    let x = URL_SAFE_NO_PAD.encode(key().verifying_key().as_bytes());
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]});
    let keys = Some(Keys::from_jwk_set(&set.to_string()).unwrap());
    let drain = Drain::new(Settings { pod_uid: UID.to_owned(), keys, ..Settings::default() });
    let routes = drain.routes();
    (drain, routes)
}

/// A token for this process, with claims replaced.
fn token(drain: &Drain, action: &str, epoch: u64, replaced: Value) -> String {
    let exp = jiff::Timestamp::now().as_second() + 60;
    let mut claims = json!({
        "iss": "graceful-operator", "sub": UID, "boot": drain.boot_id(), "action": action, "epoch": epoch, "exp": exp,
    });
    let Value::Object(replaced) = replaced else { panic!("claims are an object") };
    claims.as_object_mut().unwrap().extend(replaced);
    let encode = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let text = format!("{}.{}", encode(json!({"alg": "EdDSA", "kid": "k"})), encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(key().sign(text.as_bytes()).to_bytes());
    format!("{text}.{signature}")
}

async fn ask(
    routes: &Router,
    method: &str,
    epoch: u64,
    from: &str,
    authorization: Option<&str>,
) -> (StatusCode, HeaderMap, Value) {
    let (path, body) = match method {
        "PUT" => ("/drain".to_owned(), json!({"epoch": epoch, "lingerSeconds": 0}).to_string()),
        _ => (format!("/drain?epoch={epoch}"), String::new()),
    };
    let peer: SocketAddr = from.parse().unwrap();
    let mut request = Request::builder().method(method).uri(path).extension(ConnectInfo(peer));
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let request = request.body(Body::from(body)).unwrap();
    let (parts, body) = routes.clone().oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, 64 * 1024).await.unwrap();
    (parts.status, parts.headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_token_drains_and_resumes_and_the_status_says_that_one_is_needed() {
    let (drain, routes) = pod();
    assert!(drain.status().verifies);
    let bearer = |action, epoch| format!("Bearer {}", token(&drain, action, epoch, json!({})));
    let (status, _, body) = ask(&routes, "PUT", 7, ELSEWHERE, Some(&bearer("drain", 7))).await;
    assert_eq!((status, &body["verifies"], &body["epoch"]), (StatusCode::ACCEPTED, &json!(true), &json!(7)));
    let lower_case = bearer("resume", 8).replace("Bearer", "bearer");
    let (status, _, body) = ask(&routes, "DELETE", 8, ELSEWHERE, Some(&lower_case)).await;
    assert_eq!((status, &body["accepting"]), (StatusCode::OK, &json!(true)));
}

#[tokio::test]
async fn a_refusal_says_which_claim_and_changes_nothing() {
    let (drain, routes) = pod();
    let past = jiff::Timestamp::now().as_second() - 61;
    for (claim, authorization) in [
        (None, None),
        (None, Some("Basic dXNlcjpwYXNz".to_owned())),
        (None, Some("Bearer garbage".to_owned())),
        (Some("sub"), Some(token(&drain, "drain", 7, json!({"sub": "uid-2"})))),
        (Some("boot"), Some(token(&drain, "drain", 7, json!({"boot": "before"})))),
        (Some("action"), Some(token(&drain, "resume", 7, json!({})))),
        (Some("epoch"), Some(token(&drain, "drain", 8, json!({})))),
        (Some("exp"), Some(token(&drain, "drain", 7, json!({"exp": past})))),
        (Some("iss"), Some(token(&drain, "drain", 7, json!({"iss": "me"})))),
    ] {
        let header =
            authorization.map(|text| if text.contains(' ') { text } else { format!("Bearer {text}") });
        let (status, headers, body) = ask(&routes, "PUT", 7, ELSEWHERE, header.as_deref()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{header:?}");
        assert_eq!(body["field"].as_str(), claim, "{header:?}: {body}");
        assert_eq!(headers["content-type"], "application/problem+json");
        let challenge = headers["www-authenticate"].to_str().unwrap();
        let given = header.is_some_and(|text| text.starts_with("Bearer "));
        assert_eq!(challenge.contains("invalid_token"), given, "{challenge}");
        if given {
            assert!(
                challenge.contains(body["detail"].as_str().unwrap()),
                "{challenge} has the words of {body}"
            );
        }
    }
    let (status, ..) = ask(&routes, "DELETE", 7, ELSEWHERE, None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!((drain.status().epoch, drain.status().state), (0, State::Serving));
}

/// The epoch's own rules make it harmless.
#[tokio::test]
async fn a_token_that_is_sent_again_changes_nothing() {
    let (drain, routes) = pod();
    let bearer = |action, epoch| format!("Bearer {}", token(&drain, action, epoch, json!({})));
    let (first, back) = (bearer("drain", 7), bearer("resume", 8));
    let code = async |method: &str, epoch, bearer: &str| {
        ask(&routes, method, epoch, ELSEWHERE, Some(bearer)).await.0.as_u16()
    };
    assert_eq!(code("PUT", 7, &first).await, 202);
    assert_eq!(code("PUT", 7, &first).await, 202, "the same answer");
    assert_eq!(code("DELETE", 8, &back).await, 200);
    assert_eq!(code("PUT", 7, &first).await, 409, "the drain was taken back");
    assert_eq!(drain.status().state, State::Serving);
    assert_eq!(code("PUT", 9, &bearer("drain", 9)).await, 202);
    assert_eq!(code("DELETE", 8, &back).await, 409);
    assert!(!drain.status().accepting);
    // Nor does a process that has forgotten its epochs take it.
    let (anew, routes) = pod();
    let (status, _, body) = ask(&routes, "PUT", 7, ELSEWHERE, Some(&first)).await;
    assert_eq!((status, &body["field"]), (StatusCode::UNAUTHORIZED, &json!("boot")));
    assert_eq!(anew.status().epoch, 0);
}

#[tokio::test]
async fn loopback_needs_no_token_and_every_other_address_does() {
    let (_drain, routes) = pod();
    for (epoch, from) in [(1, "127.0.0.1:4000"), (2, "[::1]:4000"), (3, "[::ffff:127.0.0.1]:4000")] {
        assert_eq!(ask(&routes, "PUT", epoch, from, None).await.0, StatusCode::ACCEPTED, "{from}");
    }
    for from in [ELSEWHERE, "[::ffff:10.0.0.7]:4000", "[fe80::1]:4000", "169.254.1.1:4000"] {
        assert_eq!(ask(&routes, "PUT", 9, from, None).await.0, StatusCode::UNAUTHORIZED, "{from}");
    }
    let (status, ..) = ask(&routes, "PUT", 9, "127.0.0.1:4000", Some("Bearer garbage")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "a wrong one is a mistake wherever it comes from");
}

/// `axum::serve` without connect info does not tell who asks.
#[tokio::test]
async fn a_peer_that_is_not_known_is_not_loopback() {
    let (_drain, routes) = pod();
    let request = Request::put("/drain").body(Body::from(r#"{"epoch": 1}"#)).unwrap();
    let response = routes.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn pre_stop_needs_no_token() {
    let (drain, routes) = pod();
    // On all addresses, as a pod's admin port is.
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = routes.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let status = pre_stop(port, Duration::ZERO).await.unwrap();
    assert_eq!((status.state, drain.status().epoch), (State::Idle, 1));
}

#[tokio::test]
async fn a_pod_without_keys_is_drained_as_ever() {
    let drain = Drain::new(Settings::default());
    let (status, _, body) = ask(&drain.routes(), "PUT", 1, ELSEWHERE, Some("Bearer whatever")).await;
    assert_eq!((status, body.get("verifies")), (StatusCode::ACCEPTED, None));
}
