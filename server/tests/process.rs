//! The whole server as a process: signals, sockets, reports and exit codes, over loopback.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod child;

use std::process::Stdio;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Json, Router, routing};
use child::{Folder, Server};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn sigterm_finishes_what_runs_and_exits_0() {
    let mut server =
        Server::start(&["--task-seconds", "1", "--concurrency", "1", "--linger-seconds", "0"]).await;
    server.submit().await;
    server.submit().await;
    let started = Instant::now();
    server.signal("TERM");
    server.drained_to(|status| status["state"] == "Terminating" && status["inFlight"]["total"] == 2).await;
    assert_eq!(server.post().await.status(), 503);
    assert_eq!(server.exit().await, 0);
    assert!(started.elapsed() > Duration::from_millis(1500), "both tasks ran, one after the other");
    assert_eq!(server.logged("processed").len(), 2);
}

/// A ReplicaSet that takes a spare back ends it as it starts. As PID 1 it would not hear that at all, and serve on.
#[tokio::test]
async fn a_sigterm_in_mid_start_is_heard() {
    let folder = Folder::new();
    std::fs::create_dir_all(&folder.0).unwrap();
    let tokens = folder.0.join("tokens");
    let made = Command::new("mkfifo").arg(&tokens).status().await.unwrap();
    assert!(made.success());
    let mut server = Command::new(env!("CARGO_BIN_EXE_server"))
        .args(["--port", "0", "--admin-port", "0", "--linger-seconds", "0", "--data"])
        .arg(folder.0.join("data"))
        .arg("--tokens")
        .arg(&tokens)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // A pipe opens once somebody reads it: the server is about to, and has no port yet. Nothing waits in the open itself, for it
    // would wait for ever for a server that ends before.
    let opened = async {
        loop {
            match pipe::OpenOptions::new().open_sender(&tokens) {
                Ok(pipe) => break pipe,
                Err(nobody_reads) => {
                    let ended = server.try_wait().unwrap();
                    assert!(ended.is_none(), "it ended before it read its tokens: {ended:?}, {nobody_reads}");
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let mut pipe = timeout(Duration::from_secs(60), opened).await.expect("it reads its tokens");
    let pid = server.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let made =
        Command::new(env!("CARGO_BIN_EXE_server")).args(["token", "ci", "read"]).output().await.unwrap();
    pipe.write_all(&made.stdout).await.unwrap();
    drop(pipe);
    let status = timeout(Duration::from_secs(60), server.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
}

#[tokio::test]
async fn sigterm_lingers_and_serves_who_comes_meanwhile() {
    let mut server = Server::start(&["--task-seconds", "0", "--linger-seconds", "1"]).await;
    let started = Instant::now();
    server.signal("TERM");
    server.drained_to(|status| status["state"] == "Terminating").await;
    let answer = server.post().await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["connection"]), (200, &"close".parse().unwrap()));
    assert_eq!(server.exit().await, 0);
    assert!(started.elapsed() > Duration::from_secs(1));
    assert_eq!(server.logged("processed").len(), 1);
}

#[tokio::test]
async fn sigterm_that_finds_the_pod_idle_exits_at_once() {
    let mut server = Server::start(&["--linger-seconds", "30"]).await;
    server.drain(7, 0).await;
    // An operator's poll is held, and an idle keep-alive connection is open: neither keeps the process.
    let status = server.drained_to(|status| status["state"] == "Idle").await;
    assert_eq!(status["epoch"], 7);
    let held = server.poll().await;
    let started = Instant::now();
    server.signal("TERM");
    assert_eq!(server.exit().await, 0);
    assert!(started.elapsed() < Duration::from_secs(30), "it lingered: {:?}", started.elapsed());
    let last = held.await.unwrap().1.unwrap();
    assert_eq!((last["state"].as_str(), last["accepting"].as_bool()), (Some("Terminating"), Some(false)));
}

#[tokio::test]
async fn a_second_signal_aborts_at_once_and_says_what_is_cut() {
    for (second, code) in [("TERM", 143), ("INT", 130)] {
        let mut server = Server::start(&["--task-seconds", "60", "--linger-seconds", "0"]).await;
        server.submit().await;
        server.signal("TERM");
        server.drained_to(|status| status["state"] == "Terminating").await;
        let started = Instant::now();
        server.signal(second);
        assert_eq!(server.exit().await, code);
        assert!(started.elapsed() < Duration::from_secs(60), "it waited for the task");
        let said = &server.logged("second signal")[0];
        assert_eq!((&said["running"], &said["queued"]), (&json!(1), &json!(0)), "{said}");
    }
}

/// containerd repeats SIGTERM after a restart of its own.
#[tokio::test]
async fn in_a_pod_only_sigint_aborts() {
    let arguments = ["--task-seconds", "60", "--linger-seconds", "0"];
    let mut server = Server::start_with(&arguments, &[("GRACEFUL_POD_UID", "u")]).await;
    server.submit().await;
    server.signal("TERM");
    server.drained_to(|status| status["state"] == "Terminating").await;
    server.signal("TERM");
    server.logged_once("a second SIGTERM changes nothing").await;
    server.signal("INT");
    assert_eq!(server.exit().await, 130);
}

#[tokio::test]
async fn ctrl_c_drains_without_lingering() {
    let mut server = Server::start(&["--task-seconds", "0.5", "--linger-seconds", "30"]).await;
    server.submit().await;
    let started = Instant::now();
    server.signal("INT");
    assert_eq!(server.exit().await, 0);
    assert!(started.elapsed() < Duration::from_secs(30), "it lingered: {:?}", started.elapsed());
    assert_eq!(server.logged("processed").len(), 1);
}

#[tokio::test]
async fn a_socket_gets_its_results_before_it_is_told_to_go() {
    let mut server = Server::start(&["--task-seconds", "0.7", "--linger-seconds", "0"]).await;
    let mut socket = server.socket("alice").await;
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::from("Not running inside Kubernetes"));
    socket.send("ignored, as by the seed".into()).await.unwrap();
    let id = server.submit().await;
    server.signal("TERM");
    let mut heard = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        heard.push(message);
    }
    let processed = format!("Client id alice Message: {id} Task {id} processed");
    assert_eq!(heard[..2], [Message::from(processed), Message::from("Server shutting down")]);
    match &heard[2] {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1012),
        other => panic!("expected a close, not {other:?}"),
    }
    assert_eq!(server.exit().await, 0);
}

#[tokio::test]
async fn a_pod_is_named_in_the_first_frame() {
    let env = [
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("POD_NAMESPACE", "shop"),
        ("GRACEFUL_POD_NAME", "tasks-0"),
    ];
    let server = Server::start_with(&[], &env).await;
    let mut socket = server.socket("bob").await;
    let expected = Message::from("POD Name Space: shop POD Name: tasks-0");
    assert_eq!(socket.next().await.unwrap().unwrap(), expected);
}

#[tokio::test]
async fn a_socket_that_never_answers_does_not_hold_the_exit() {
    let mut server = Server::start(&["--linger-seconds", "0"]).await;
    // Opened and never read again: no pong, no answer to the close.
    let _deaf = server.socket("deaf").await;
    server.drained_to(|status| status["connections"] == 1).await;
    server.signal("TERM");
    server.drained_to(|status| status["state"] == "Terminating").await;
    // Nor does a poll that waits for a change that will not come.
    let held = server.poll().await;
    assert_eq!(server.exit().await, 0);
    assert_eq!(held.await.unwrap().0, 304);
}

#[tokio::test]
async fn pre_stop_starts_the_drain_and_waits_for_its_end() {
    let mut server = Server::start(&["--task-seconds", "0.5"]).await;
    server.submit().await;
    let (code, _) = server.pre_stop(&["--linger-seconds", "0"]).await;
    assert_eq!(code, 0);
    let status = server.status().await;
    assert_eq!((&status["state"], &status["epoch"]), (&json!("Idle"), &json!(1)));
    assert_eq!(server.logged("processed").len(), 1);

    let started = Instant::now();
    assert_eq!(server.pre_stop(&["--linger-seconds", "40"]).await.0, 0);
    assert!(started.elapsed() < Duration::from_secs(40), "at once when idle: {:?}", started.elapsed());
    server.signal("TERM");
    assert_eq!(server.exit().await, 0);
    let (code, said) = server.pre_stop(&[]).await;
    assert!(code != 0 && said.contains("cannot reach the drain endpoint"), "{code}: {said}");
}

/// A collector that refuses the first two posts of each run, then takes them.
async fn collector() -> (String, mpsc::UnboundedReceiver<(Value, bool)>) {
    let (seen, reports) = mpsc::unbounded_channel();
    let refusals = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let take = move |State(seen): State<mpsc::UnboundedSender<(Value, bool)>>, Json(report): Json<Value>| async move {
        let taken = refusals.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= 2;
        seen.send((report, taken)).unwrap();
        if taken { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE }
    };
    let app = Router::new().route("/ended", routing::post(take)).with_state(seen);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://localhost:{}/ended", listener.local_addr().unwrap().port());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, reports)
}

#[tokio::test]
async fn a_task_is_in_flight_until_its_end_is_reported() {
    let (url, mut reports) = collector().await;
    let args = ["--task-seconds", "0", "--linger-seconds", "0", "--report-url", &url];
    let mut server = Server::start_with(&args, &[("GRACEFUL_POD_UID", "uid-9")]).await;
    let id = server.submit().await;
    let (first, taken) = reports.recv().await.unwrap();
    assert!(!taken);
    let boot = server.status().await["bootId"].clone();
    assert_eq!(first, json!({"taskId": id, "podUid": "uid-9", "bootId": boot, "outcome": "processed"}));
    server.signal("TERM");
    assert_eq!(server.exit().await, 0);
    // The exit waited for the report that was taken.
    let mut told = Vec::new();
    while let Ok((report, taken)) = reports.try_recv() {
        assert_eq!(report["taskId"], json!(id));
        told.push(taken);
    }
    assert_eq!(told, [false, true]);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, said) = child::run(&["--port", &port, "--admin-port", "0"]).await;
    assert!(code != 0 && said.contains(&format!("--port {port}")), "{code}: {said}");
}
