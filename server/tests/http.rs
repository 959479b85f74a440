//! The kind `http`, on a real server: calls to one that works, and to one that fails, hangs and lies.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod callee;
mod child;

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use callee::{Callee, Heard, Say};
use child::{Folder, Server};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

const KEY: &str = "a key that only the two ends know";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

/// A server that may call this target.
async fn server(allow: &str) -> Server {
    Server::start_with(&["--http-allow", allow], &[("GRACEFUL_HTTP_KEY", KEY)]).await
}

async fn submit(server: &Server, mut task: Value) -> String {
    task["kind"] = json!("http");
    let (status, body) = server.call("POST", "/v1/tasks", Some(&task)).await;
    assert_eq!(status, 202, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

/// The task, once it has ended.
async fn end(server: &Server, id: &str) -> Value {
    server.task(id, |task| task["ended_at"].is_string()).await
}

/// A call to a callee that does this, made once.
async fn once(say: Say) -> Value {
    let callee = Callee::that(&[say]).await;
    let server = server(&callee.url()).await;
    let input = json!({"url": callee.url(), "timeout_seconds": 2});
    let id = submit(&server, json!({"input": input, "max_attempts": 1})).await;
    let task = end(&server, &id).await;
    assert_eq!(callee.calls(), 1);
    task
}

fn signature(id: &str, attempt: u64, at: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(format!("v1:{id}:{attempt}:{at}:").as_bytes());
    mac.update(body);
    format!("v1={}", hex::encode(mac.finalize().into_bytes()))
}

/// It is of this attempt at this task, made just now, and by who has the key.
fn assert_is_ours(heard: &Heard, id: &str, attempt: u64) {
    let at: i64 = heard.header("graceful-time").unwrap().parse().unwrap();
    assert!((Timestamp::now().as_second() - at).abs() < 60, "{}", heard.head);
    for (header, value) in [
        ("idempotency-key", id),
        ("graceful-task-id", id),
        ("graceful-attempt", &attempt.to_string()),
        ("graceful-signature", &signature(id, attempt, at, &heard.body)),
    ] {
        assert_eq!(heard.header(header), Some(value), "{}", heard.head);
    }
}

#[tokio::test]
async fn a_call_carries_what_was_handed_in_and_says_whose_it_is() {
    let callee = Callee::that(&[Say::Long(201, 5000)]).await;
    let server = server(&callee.url()).await;
    let input = json!({
        "url": format!("{}/orders?a=b", callee.url()), "method": "PUT", "json": {"pizza": 1},
        "headers": {"authorization": "Bearer x"},
    });
    let id = submit(&server, json!({"input": input})).await;
    let task = end(&server, &id).await;
    assert_eq!(task["state"], "succeeded", "{task}");
    let kept = json!({"status": 201, "body": "x".repeat(1024), "truncated": true});
    assert_eq!(task["output"], kept, "the status and the first KiB");
    let heard = &callee.heard(1).await[0];
    assert!(heard.head.starts_with("PUT /orders?a=b HTTP/1.1\r\n"), "{}", heard.head);
    assert_eq!(heard.body, br#"{"pizza":1}"#);
    assert_eq!(heard.header("authorization"), Some("Bearer x"));
    assert_is_ours(heard, &id, 1);
}

#[tokio::test]
async fn a_callee_that_fails_is_called_again_with_the_same_key() {
    let callee = Callee::that(&[Say::Bytes("HTTP/1.1 500 Oh\r\n\r\nno"), Say::Bytes(OK)]).await;
    let server = server(&callee.url()).await;
    let id = submit(&server, json!({"input": {"url": callee.url()}})).await;
    let task = end(&server, &id).await;
    assert_eq!((&task["state"], &task["attempt"]), (&json!("succeeded"), &json!(2)), "{task}");
    let heard = callee.heard(2).await;
    assert_is_ours(&heard[0], &id, 1);
    assert_is_ours(&heard[1], &id, 2);
}

#[tokio::test]
async fn a_callee_that_hangs_or_lies_is_a_failure_and_never_a_success() {
    for (say, error) in [
        (Say::Hold, "did not end within 2 s"),
        (Say::Drip, "did not end within 2 s"),
        (Say::Bytes(""), "no valid answer"),
        (Say::Bytes("200 OK\r\n\r\n"), "no valid answer"),
        (Say::Bytes("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly so much"), "no valid answer"),
        (Say::Bytes("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel"), "no valid answer"),
        (Say::Bytes("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"), "101"),
        (Say::Bytes("HTTP/1.1 500 Oh\r\n\r\nno"), "answered 500 Internal Server Error: no"),
        (Say::Bytes("HTTP/1.1 404 Not Found\r\n\r\n"), "answered 404 Not Found"),
    ] {
        let task = once(say).await;
        assert_eq!(task["state"], "dead", "{say:?}: {task}");
        assert!(task["error"].as_str().unwrap().contains(error), "{say:?}: {task}");
    }
}

#[tokio::test]
async fn an_answer_takes_no_more_memory_than_is_kept_of_it() {
    let task = once(Say::Long(200, 8 << 20)).await;
    assert_eq!((&task["state"], &task["output"]["truncated"]), (&json!("succeeded"), &json!(true)));
    let said = once(Say::Long(500, 8 << 20)).await["error"].as_str().unwrap().len();
    assert!((1024..1200).contains(&said), "{said}");
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_leads_nowhere() {
    let elsewhere = Callee::that(&[Say::Bytes(OK)]).await;
    let location = format!("HTTP/1.1 307 Off\r\nlocation: {}/\r\ncontent-length: 0\r\n\r\n", elsewhere.url());
    let callee = Callee::that(&[Say::Bytes(location.leak())]).await;
    let server = server(&format!("{},{}", callee.url(), elsewhere.url())).await;
    let id = submit(&server, json!({"input": {"url": callee.url()}, "max_attempts": 1})).await;
    let task = end(&server, &id).await;
    assert!(task["error"].as_str().unwrap().contains("redirects are not followed"), "{task}");
    assert_eq!((callee.calls(), elsewhere.calls()), (1, 0));
}

#[tokio::test]
async fn a_long_retry_after_waits_as_long_as_the_policy_may_and_the_task_says_until_when() {
    let callee = Callee::that(&[Say::Bytes("HTTP/1.1 429 Slow down\r\nretry-after: 86400\r\n\r\n")]).await;
    let server = server(&callee.url()).await;
    let id = submit(&server, json!({"input": {"url": callee.url()}})).await;
    let task = server.task(&id, |task| task["state"] == "queued" && task["attempt"] == 1).await;
    let due: Timestamp = task["due_at"].as_str().unwrap().parse().unwrap();
    let seconds = due.as_second() - Timestamp::now().as_second();
    assert!((200..=300).contains(&seconds), "{seconds}: {task}");
    assert!(task["error"].as_str().unwrap().contains("429"), "{task}");
}

#[tokio::test]
async fn nothing_is_called_unless_a_flag_allows_it() {
    let callee = Callee::that(&[Say::Bytes(OK)]).await;
    let task = json!({"kind": "http", "input": {"url": callee.url()}});
    let closed = Server::start(&[]).await;
    let (status, problem) = closed.call("POST", "/v1/tasks", Some(&task)).await;
    assert_eq!((status, &problem["field"]), (403, &json!("input.url")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("--http-allow"), "{problem}");

    let other = server("https://*,http://localhost:1").await;
    let (status, problem) = other.call("POST", "/v1/tasks", Some(&task)).await;
    assert_eq!(status, 403, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("--http-allow"), "{problem}");
    assert_eq!(callee.calls(), 0);
}

#[tokio::test]
async fn a_task_whose_target_is_allowed_no_more_is_dead_and_not_called() {
    let callee = Callee::that(&[Say::Bytes(OK)]).await;
    let data = Folder::new();
    let before = Server::start_on(&data, &["--http-allow", &callee.url()]).await;
    let id = submit(&before, json!({"input": {"url": callee.url()}, "delay_seconds": 1})).await;
    before.kill().await;
    let after = Server::start_on(&data, &["--http-allow", "https://api.example.com"]).await;
    let task = end(&after, &id).await;
    assert_eq!((&task["state"], callee.calls()), (&json!("dead"), 0), "{task}");
    assert!(task["error"].as_str().unwrap().contains("--http-allow"), "{task}");
}

#[tokio::test]
async fn a_call_is_in_flight_until_its_answer_was_taken() {
    let callee = Callee::that(&[Say::Hold]).await;
    let mut server = server(&callee.url()).await;
    let id = submit(&server, json!({"input": {"url": callee.url()}})).await;
    callee.heard(1).await;
    server.drain(1, 0).await;
    let status = server.drained_to(|status| status["state"] == "Draining").await;
    assert_eq!(status["inFlight"]["running"], 1, "{status}");
    callee.let_go();
    server.drained_to(|status| status["state"] == "Idle").await;
    let task = end(&server, &id).await;
    assert_eq!(task["output"]["body"], "held", "idle means that the answer was taken: {task}");
    server.signal("TERM");
    assert_eq!(server.exit().await, 0);
    assert_eq!(callee.calls(), 1);
}

#[tokio::test]
async fn a_call_that_a_crash_cut_is_made_again() {
    let callee = Callee::that(&[Say::Hold, Say::Bytes(OK)]).await;
    let data = Folder::new();
    let server = Server::start_on(&data, &["--http-allow", &callee.url()]).await;
    let id = submit(&server, json!({"input": {"url": callee.url()}})).await;
    callee.heard(1).await;
    server.kill().await;
    let server = Server::start_on(&data, &["--http-allow", &callee.url()]).await;
    let task = end(&server, &id).await;
    assert_eq!((&task["state"], &task["attempt"]), (&json!("succeeded"), &json!(2)), "{task}");
    let keys: Vec<_> =
        callee.heard(2).await.iter().map(|call| call.header("idempotency-key").unwrap().to_owned()).collect();
    assert_eq!(keys, [id.clone(), id]);
}

/// A certificate for `localhost`, what shows it, and the file by which it is known.
fn certified(folder: &Folder) -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let file = folder.0.join("ca.pem");
    std::fs::write(&file, made.cert.pem()).unwrap();
    (TlsAcceptor::from(Arc::new(config)), file.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn tls_is_spoken_with_those_alone_whose_certificate_is_known() {
    let (folder, others) = (Folder::new(), Folder::new());
    let (tls, authority) = certified(&folder);
    let (_, stranger) = certified(&others);
    let callee = Callee::over(&[Say::Bytes(OK)], Some(tls)).await;
    let url = format!("https://localhost:{}", callee.port);
    for (authority, by_address, wanted) in
        [(&authority, false, "succeeded"), (&stranger, false, "dead"), (&authority, true, "dead")]
    {
        let url = if by_address { url.replace("localhost", "127.0.0.1") } else { url.clone() };
        let server = Server::start(&["--http-allow", &url, "--http-ca", authority]).await;
        let id = submit(&server, json!({"input": {"url": url}, "max_attempts": 1})).await;
        let task = end(&server, &id).await;
        assert_eq!(task["state"], wanted, "{url}: {task}");
        assert!(wanted == "succeeded" || task["error"].as_str().unwrap().contains("TLS"), "{task}");
    }
    assert_eq!(callee.calls(), 1);
    let (code, said) = child::run(&["--http-allow", &url, "--http-ca", "/dev/null"]).await;
    assert!(code != 0 && said.contains("--http-ca /dev/null"), "{said}");
}

/// `samples/http-handler.py`, on a free port.
async fn sample(folder: &Folder) -> (Child, u16) {
    let mut python = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/http-handler.py"))
        .arg("0")
        .arg(folder.0.join("orders.db"))
        .env("GRACEFUL_HTTP_KEY", KEY)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(python.stdout.take().unwrap()).lines();
    let port =
        tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await.unwrap().unwrap().unwrap();
    (python, port.parse().unwrap())
}

#[tokio::test]
async fn a_handler_in_python_takes_calls_and_does_each_once() {
    let folder = Folder::new();
    let (_python, port) = sample(&folder).await;
    let url = format!("http://127.0.0.1:{port}");
    let server = server(&url).await;
    let id = submit(&server, json!({"input": {"url": url, "json": {"pizza": 1}}})).await;
    let task = end(&server, &id).await;
    assert_eq!(task["output"], json!({"status": 200, "body": "order 1", "truncated": false}), "{task}");

    // The same once more, as after an answer that was lost; then what no server of ours would send.
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (now, body) = (Timestamp::now().as_second(), br#"{"pizza":1}"#);
    let send = async |id: &str, at: i64, signature: &str| {
        let request = client.post(&url).header("graceful-task-id", id).header("graceful-attempt", "2");
        let request = request.header("graceful-time", at).header("graceful-signature", signature);
        let answer = request.body(&body[..]).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(send(&id, now, &signature(&id, 2, now, body)).await, (200, "order 1".to_owned()));
    assert_eq!(send("other", now, &signature(&id, 2, now, body)).await.0, 401, "of another task");
    assert_eq!(send(&id, now - 400, &signature(&id, 2, now - 400, body)).await.0, 401, "old");
    assert_eq!(send(&id, now, &signature(&id, 2, now, b"{}")).await.0, 401, "another body");
    let both = format!("v1=00,{}", signature("next", 2, now, body));
    assert_eq!(send("next", now, &both).await, (200, "order 2".to_owned()), "while a key is exchanged");
}
