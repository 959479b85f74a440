//! The drain, from a client's side and from the operator's: closed means closed, and what was let in is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::app::{self, App, ok};
use super::client::{answer, ask, get, post, rest};
use super::gate::{Gate, PATIENCE, PROGRAM};
use graceful_drain::State;

/// An app whose answers wait until the test says so, and which counts those that it has.
async fn held() -> (App, Arc<Notify>, Arc<AtomicU64>) {
    let (go, has) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
    let (gone, had) = (go.clone(), has.clone());
    let app = App::new(move |mut stream| {
        let (go, has) = (gone.clone(), had.clone());
        async move {
            while app::head(&mut stream).await.is_some() {
                has.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                stream.write_all(ok("done").as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    (app, go, has)
}

/// Clients race against the latch, thousands of requests of them. Once the gate has said that it is latched, not one more may reach the app; each that did
/// has its answer; each other its refusal. Without a linger, a request may cross the close of its idle connection: it is neither answered nor with the app, and
/// its client knows that. With one, even that does not happen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_accepted_past_the_latched_answer_and_nothing_is_lost() {
    let (reached, latched) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let late = Arc::new(AtomicU64::new(0));
    let app = {
        let (reached, latched, late) = (reached.clone(), latched.clone(), late.clone());
        App::http(move |_, _| {
            reached.fetch_add(1, Ordering::SeqCst);
            if latched.load(Ordering::SeqCst) {
                late.fetch_add(1, Ordering::SeqCst);
            }
            ok("hi")
        })
        .await
    };
    let gate = Arc::new(Gate::before(app.port, &[]).await);
    let (answered, refused, stop) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let lingers = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (gate, answered, refused, stop) =
                (gate.clone(), answered.clone(), refused.clone(), stop.clone());
            let lingers = lingers.clone();
            tokio::spawn(async move {
                let mut stream = gate.connect().await;
                while !stop.load(Ordering::SeqCst) {
                    let Some(got) = ask(&mut stream, &post("/", "x")).await else {
                        assert!(!lingers.load(Ordering::SeqCst), "a request without an answer");
                        stream = gate.connect().await;
                        continue;
                    };
                    match got.status {
                        200 => answered.fetch_add(1, Ordering::SeqCst),
                        503 => refused.fetch_add(1, Ordering::SeqCst),
                        other => panic!("{other}: {}", got.body),
                    };
                    assert!(got.status == 200 || got.header("retry-after") == Some("1"), "{}", got.head);
                    if got.header("connection") == Some("close") {
                        stream = gate.connect().await;
                    }
                }
            })
        })
        .collect();
    for round in 0..20 {
        let linger = u64::from(round >= 15);
        if linger == 1 {
            // Those that crossed the last close are through by the next answers.
            sleep(Duration::from_millis(200)).await;
            lingers.store(true, Ordering::SeqCst);
        }
        let before = answered.load(Ordering::SeqCst);
        while answered.load(Ordering::SeqCst) < before + 100 {
            sleep(Duration::from_millis(1)).await;
        }
        gate.drain(2 * round + 1, linger).await;
        gate.wait("idle", |status| status.is_idle()).await;
        latched.store(true, Ordering::SeqCst);
        let (had, before) = (reached.load(Ordering::SeqCst), refused.load(Ordering::SeqCst));
        while refused.load(Ordering::SeqCst) < before + 100 {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(reached.load(Ordering::SeqCst), had, "a request reached the app past the latch");
        assert!(gate.status().await.is_idle(), "idle stays idle");
        latched.store(false, Ordering::SeqCst);
        gate.resume(2 * round + 2).await;
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(late.load(Ordering::SeqCst), 0);
    assert_eq!(
        reached.load(Ordering::SeqCst),
        answered.load(Ordering::SeqCst),
        "each that was let in has its answer"
    );
    assert_eq!(gate.metric("graceful_gate_refused_total").await, refused.load(Ordering::SeqCst) as f64);
    gate.counted_out().await;
}

#[tokio::test]
async fn what_was_let_in_is_answered_and_holds_the_drain() {
    let (app, go, has) = held().await;
    let gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    stream.write_all(get("/").as_bytes()).await.unwrap();
    gate.wait("with the app", |_| has.load(Ordering::SeqCst) == 1).await;
    let status = gate.drain(1, 0).await;
    assert_eq!((status.state, status.accepting, status.in_flight.requests), (State::Draining, false, 1));
    assert_eq!(status.pod_uid, "uid-of-the-test");
    let refused = ask(&mut gate.connect().await, &get("/")).await.unwrap();
    assert_eq!(
        (refused.status, refused.header("retry-after"), refused.header("connection")),
        (503, Some("1"), Some("close"))
    );
    go.notify_one();
    let got = answer(&mut stream).await.unwrap();
    assert_eq!((got.body.as_str(), got.header("connection")), ("done", Some("close")));
    gate.wait("idle", |status| status.state == State::Idle && status.is_idle()).await;
    assert_eq!(has.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_client_that_is_refused_in_its_body_reads_the_refusal() {
    let app = App::http(|_, _| ok("")).await;
    let gate = Gate::before(app.port, &[]).await;
    gate.drain(1, 0).await;
    for _ in 0..20 {
        let mut stream = gate.connect().await;
        // The write may fail once the gate has had enough; the answer must be there all the same.
        let got = ask(&mut stream, &post("/", &"x".repeat(500_000))).await;
        assert_eq!(got.expect("an answer, and no reset").status, 503);
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 0);
}

/// While it lingers it serves, and sends its clients away: each answer is the last of its connection, and idle connections are closed before the latch.
#[tokio::test]
async fn lingering_serves_and_sends_away() {
    let app = App::http(|_, _| ok("hi")).await;
    let gate = Gate::before(app.port, &[]).await;
    let mut idle = gate.connect().await;
    assert_eq!(ask(&mut idle, &get("/")).await.unwrap().header("connection"), None);
    let status = gate.drain(1, 3600).await;
    assert_eq!((status.state, status.accepting), (State::Lingering, true));
    let mut straggler = gate.connect().await;
    let got = ask(&mut straggler, &get("/")).await.unwrap();
    assert_eq!((got.status, got.header("connection")), (200, Some("close")));
    assert_eq!(rest(&mut straggler).await, "");
    gate.resume(2).await;
    gate.drain(3, 1).await;
    assert_eq!(rest(&mut idle).await, "", "closed in order, without an answer that nobody asked for");
    gate.wait("idle", |status| status.is_idle()).await;
    gate.resume(4).await;
    assert_eq!(ask(&mut gate.connect().await, &get("/")).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_signal_drains_and_then_ends() {
    let (app, go, has) = held().await;
    let mut gate = Gate::before(app.port, &["--linger-seconds", "1"]).await;
    let mut stream = gate.connect().await;
    stream.write_all(get("/").as_bytes()).await.unwrap();
    gate.wait("with the app", |_| has.load(Ordering::SeqCst) == 1).await;
    gate.signal("-TERM");
    gate.wait("latched", |status| status.state == State::Terminating && !status.accepting).await;
    go.notify_one();
    assert_eq!(answer(&mut stream).await.unwrap().body, "done");
    assert_eq!(gate.exit().await.code(), Some(0));
}

/// In a pod SIGINT alone aborts: containerd may send SIGTERM twice.
#[tokio::test]
async fn a_second_signal_cuts() {
    let (app, _go, has) = held().await;
    let mut gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    stream.write_all(get("/").as_bytes()).await.unwrap();
    gate.wait("with the app", |_| has.load(Ordering::SeqCst) == 1).await;
    gate.signal("-TERM");
    gate.wait("terminating", |status| status.state == State::Terminating).await;
    gate.signal("-TERM");
    gate.signal("-INT");
    assert_eq!(gate.exit().await.code(), Some(128 + 2));
}

/// A slow reader's last bytes are on their way when nothing is in flight any more; the process waits for them.
#[tokio::test]
async fn a_slow_reader_has_its_whole_answer_before_the_process_ends() {
    const SIZE: usize = 3_000_000;
    let app = App::http(|_, _| ok(&"x".repeat(SIZE))).await;
    let mut gate = Gate::before(app.port, &["--linger-seconds", "0"]).await;
    let mut stream = gate.connect().await;
    stream.write_all(get("/").as_bytes()).await.unwrap();
    app::head(&mut stream).await.unwrap();
    gate.signal("-TERM");
    let mut read = 0;
    let mut piece = vec![0; 100_000];
    loop {
        let got = timeout(PATIENCE, stream.read(&mut piece)).await.unwrap().unwrap();
        if got == 0 {
            break;
        }
        read += got;
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(read, SIZE);
    assert_eq!(gate.exit().await.code(), Some(0));
}

#[tokio::test]
async fn the_pre_stop_hook_drains_and_waits() {
    let (app, go, has) = held().await;
    let gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    stream.write_all(get("/").as_bytes()).await.unwrap();
    gate.wait("with the app", |_| has.load(Ordering::SeqCst) == 1).await;
    let admin = gate.admin.to_string();
    let mut hook = Command::new(PROGRAM)
        .args(["pre-stop", "--admin-port", &admin, "--linger-seconds", "0"])
        .spawn()
        .unwrap();
    gate.wait("latched", |status| status.epoch == 1 && !status.accepting).await;
    assert!(hook.try_wait().unwrap().is_none(), "a request is being answered");
    go.notify_one();
    assert!(timeout(PATIENCE, hook.wait()).await.unwrap().unwrap().success());
    assert_eq!(answer(&mut stream).await.unwrap().body, "done");
    drop(gate);
    let mut nobody = Command::new(PROGRAM).args(["pre-stop", "--admin-port", &admin]).spawn().unwrap();
    assert_eq!(timeout(PATIENCE, nobody.wait()).await.unwrap().unwrap().code(), Some(1));
}

#[tokio::test]
async fn wait_idle_starts_nothing_and_waits_for_the_end() {
    let (app, go, has) = held().await;
    let gate = Arc::new(Gate::before(app.port, &[]).await);
    let mut stream = gate.connect().await;
    stream.write_all(get("/").as_bytes()).await.unwrap();
    gate.wait("with the app", |_| has.load(Ordering::SeqCst) == 1).await;
    let asking = gate.clone();
    let mut hook = tokio::spawn(async move { asking.admin("GET /wait-idle", "").await });
    assert!(timeout(Duration::from_millis(300), &mut hook).await.is_err(), "nobody drains yet");
    assert_eq!(gate.status().await.state, State::Serving, "it starts nothing");
    gate.drain(1, 0).await;
    assert!(timeout(Duration::from_millis(300), &mut hook).await.is_err(), "a request is being answered");
    go.notify_one();
    let (code, said) = timeout(PATIENCE, hook).await.unwrap().unwrap();
    assert_eq!((code, said.as_str()), (200, "idle\n"));
    assert_eq!(answer(&mut stream).await.unwrap().body, "done");
}

/// A container that the kubelet restarts alone has the same hook, and no pod that ends.
#[tokio::test]
async fn wait_idle_lets_go_when_nobody_drains() {
    let app = App::http(|_, _| ok("")).await;
    let gate = Gate::before(app.port, &[]).await;
    let (code, said) = timeout(PATIENCE, gate.admin("GET /wait-idle", "")).await.unwrap();
    assert!(code == 200 && said.contains("nobody drains"), "{said}");
    assert_eq!(gate.status().await.state, State::Serving);
}

/// The keys and the token are those of docs/drain-token.vectors.json; what each refusal says is graceful-drain's own test.
#[tokio::test]
async fn the_operators_tokens_are_checked_as_graceful_drain_checks_them() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../../docs/drain-token.vectors.json")).unwrap();
    let app = App::http(|_, _| ok("")).await;
    let keys = vectors["keys"].to_string();
    let gate = Gate::with(app.port, &[], &[("GRACEFUL_DRAIN_KEYS", &keys)]).await;
    assert!(gate.status().await.verifies, "{keys}");
    let mut stream = TcpStream::connect(("127.0.0.1", gate.admin)).await.unwrap();
    let body = r#"{"epoch": 1}"#;
    let request = format!(
        "PUT /drain HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x.y.z\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(ask(&mut stream, &request).await.unwrap().status, 401);
    assert_eq!(gate.status().await.epoch, 0);
}

#[tokio::test]
async fn health_and_metrics_answer_in_all_states() {
    let app = App::http(|_, _| ok("")).await;
    let gate = Gate::before(app.port, &[]).await;
    for epoch in [None, Some(1)] {
        if let Some(epoch) = epoch {
            gate.drain(epoch, 0).await;
        }
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(gate.admin(&format!("GET {path}"), "").await.0, 200, "{path}");
        }
    }
    assert_eq!(gate.metric("graceful_gate_drain_state{state=\"Idle\"}").await, 1.0);
}
