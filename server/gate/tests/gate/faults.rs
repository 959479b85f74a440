//! Apps that are away, die, lie or sleep, and clients that do: an answer or an end for each, and counts that come out at zero.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::app::{self, App, ok};
use super::client::{answer, ask, get, post, rest};
use super::gate::{Gate, PATIENCE};

#[tokio::test]
async fn an_app_that_is_not_there_yet_is_said_so_and_served_once_it_is() {
    let port = App::none();
    let gate = Gate::before(port, &[]).await;
    let mut stream = gate.connect().await;
    for request in [get("/"), post("/", "hi")] {
        let got = ask(&mut stream, &request).await.unwrap();
        assert_eq!((got.status, got.header("retry-after")), (503, Some("1")), "{}", got.body);
        stream = gate.connect().await;
    }
    gate.counted_out().await;
    assert_eq!(gate.metric("graceful_gate_app_faults_total{reason=\"not_there\"}").await, 2.0);
    let _app = App::at(port, |mut stream| async move {
        app::head(&mut stream).await.unwrap();
        stream.write_all(ok("here").as_bytes()).await.unwrap();
    })
    .await;
    assert_eq!(ask(&mut stream, &get("/")).await.unwrap().body, "here");
}

#[tokio::test]
async fn an_app_that_dies_before_its_answer_is_a_502() {
    for garbage in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-",
        "hello\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ] {
        let app = App::new(move |mut stream| async move {
            app::head(&mut stream).await.unwrap();
            stream.write_all(garbage.as_bytes()).await.unwrap();
        })
        .await;
        let gate = Gate::before(app.port, &[]).await;
        let got = ask(&mut gate.connect().await, &get("/")).await.unwrap();
        assert_eq!(got.status, 502, "{garbage:?}");
        gate.counted_out().await;
    }
}

/// The client must see that its answer is not whole: an end in order would pass for one.
#[tokio::test]
async fn an_app_that_dies_in_its_answer_ends_the_answer_as_cut() {
    for head in ["content-length: 100", "transfer-encoding: chunked"] {
        let die = Arc::new(Notify::new());
        let app = {
            let die = die.clone();
            App::new(move |mut stream| {
                let die = die.clone();
                async move {
                    app::head(&mut stream).await.unwrap();
                    stream
                        .write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n").as_bytes())
                        .await
                        .unwrap();
                    die.notified().await;
                }
            })
            .await
        };
        let gate = Gate::before(app.port, &[]).await;
        let mut stream = gate.connect().await;
        stream.write_all(get("/").as_bytes()).await.unwrap();
        app::head(&mut stream).await.unwrap();
        assert_eq!(gate.status().await.in_flight.requests, 1);
        die.notify_one();
        let got = rest(&mut stream).await;
        assert!(got.contains("hello") && !got.ends_with("0\r\n\r\n") && got.len() < 100, "{head}: {got:?}");
        gate.counted_out().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_out_and_the_app_hears_of_it() {
    let (has, left) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let app = {
        let (has, left) = (has.clone(), left.clone());
        App::new(move |mut stream| {
            let (has, left) = (has.clone(), left.clone());
            async move {
                let head = app::head(&mut stream).await.unwrap();
                has.notify_one();
                if head.contains("/begun") {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello").await.unwrap();
                }
                assert_eq!(rest(&mut stream).await, "");
                left.notify_one();
            }
        })
        .await
    };
    let gate = Gate::before(app.port, &[]).await;
    for path in ["/silent", "/begun"] {
        let mut stream = gate.connect().await;
        stream.write_all(get(path).as_bytes()).await.unwrap();
        timeout(PATIENCE, has.notified()).await.unwrap();
        assert_eq!(gate.status().await.in_flight.requests, 1);
        if path == "/begun" {
            app::head(&mut stream).await.unwrap();
        }
        drop(stream);
        timeout(PATIENCE, left.notified()).await.expect("the app sees its client go");
        gate.counted_out().await;
    }
}

/// As nginx has it, and uvicorn: who says that nothing more will come while an answer is owed cannot be told from who has gone, and would hold a drain.
#[tokio::test]
async fn a_client_that_has_said_its_last_has_gone() {
    let begun = Arc::new(Notify::new());
    let app = {
        let begun = begun.clone();
        App::new(move |mut stream| {
            let begun = begun.clone();
            async move {
                app::head(&mut stream).await.unwrap();
                begun.notify_one();
                rest(&mut stream).await;
            }
        })
        .await
    };
    let gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    stream.write_all(get("/").as_bytes()).await.unwrap();
    timeout(PATIENCE, begun.notified()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
    gate.counted_out().await;
}

/// A body that cannot be read is its client's fault, and told to it.
#[tokio::test]
async fn a_body_that_is_none_is_not_the_apps_fault() {
    let app = App::new(|mut stream| async move { drop(rest(&mut stream).await) }).await;
    let gate = Gate::before(app.port, &[]).await;
    let request =
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi and no end of a chunk";
    assert_eq!(ask(&mut gate.connect().await, request).await.unwrap().status, 400);
    gate.counted_out().await;
    assert_eq!(gate.metric("graceful_gate_app_faults_total{reason=\"died\"}").await, 0.0);
    assert!(!gate.log().contains("no answer from the app"), "{}", gate.log());
}

#[tokio::test]
async fn an_app_may_be_slow_unless_somebody_set_a_limit() {
    let app = App::new(|mut stream| async move {
        app::head(&mut stream).await.unwrap();
        sleep(Duration::from_millis(2500)).await;
        let _ = stream.write_all(ok("slow").as_bytes()).await;
    })
    .await;
    let patient = Gate::before(app.port, &["--idle-seconds", "1", "--body-idle-seconds", "1"]).await;
    assert_eq!(
        ask(&mut patient.connect().await, &get("/")).await.unwrap().body,
        "slow",
        "no client's limit is the app's"
    );
    let limited = Gate::before(app.port, &["--app-answer-seconds", "1"]).await;
    assert_eq!(ask(&mut limited.connect().await, &get("/")).await.unwrap().status, 504);
    limited.counted_out().await;
    assert_eq!(limited.metric("graceful_gate_app_faults_total{reason=\"late\"}").await, 1.0);
}

/// A byte at a time, or none: clients that would otherwise keep a place for ever.
#[tokio::test]
async fn clients_that_dawdle_lose_their_place() {
    let app = App::http(|_, body| ok(body)).await;
    let gate = Gate::before(app.port, &["--idle-seconds", "1", "--body-idle-seconds", "1"]).await;
    for begun in ["", "P", "PRI", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\nA: "] {
        let mut stream = gate.connect().await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        let said = rest(&mut stream).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{begun:?}: {said}");
    }
    let mut stream = gate.connect().await;
    assert_eq!(ask(&mut stream, &get("/")).await.unwrap().status, 200);
    assert_eq!(rest(&mut stream).await, "", "idle after a request");
    let mut stream = gate.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe").await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap().status, 408, "paused in its body");
    // Slow is not idle: longer than the limit in all, and never so between two pieces.
    let mut stream = gate.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n").await.unwrap();
    for byte in [b"h", b"e", b"l", b"l", b"o"] {
        sleep(Duration::from_millis(300)).await;
        stream.write_all(byte).await.unwrap();
    }
    assert_eq!(answer(&mut stream).await.unwrap().body, "hello");
    gate.counted_out().await;
}

/// Its answer would wait in our buffers, and hold the drain up, for ever.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_reads_nothing_is_cut() {
    let app = App::new(|mut stream| async move {
        app::head(&mut stream).await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let piece = format!("{:x}\r\n{}\r\n", 60_000, "x".repeat(60_000));
        while stream.write_all(piece.as_bytes()).await.is_ok() {}
    })
    .await;
    let gate = Gate::before(app.port, &["--unread-seconds", "1"]).await;
    let mut stream = gate.connect().await;
    stream.write_all(get("/").as_bytes()).await.unwrap();
    gate.wait("with the app", |status| status.in_flight.requests == 1).await;
    gate.counted_out().await;
    drop(stream);
}

/// An app that closes what is idle at once: the connection that the gate kept is dead when it is next used.
#[tokio::test]
async fn a_connection_that_the_app_has_closed_costs_no_request() {
    let app = App::new(|mut stream| async move {
        let Some(_) = app::head(&mut stream).await else { return };
        stream.write_all(ok("hi").as_bytes()).await.unwrap();
        // No word of it in the answer.
    })
    .await;
    let gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    for _ in 0..20 {
        assert_eq!(ask(&mut stream, &get("/")).await.unwrap().body, "hi");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn past_the_limit_of_connections_clients_wait_for_a_place() {
    let app = App::http(|_, _| ok("hi")).await;
    let gate = Gate::before(app.port, &["--max-connections", "2"]).await;
    let (mut one, mut two) = (gate.connect().await, gate.connect().await);
    assert_eq!(ask(&mut one, &get("/")).await.unwrap().status, 200);
    assert_eq!(ask(&mut two, &get("/")).await.unwrap().status, 200);
    assert_eq!(gate.metric("graceful_gate_connections").await, 2.0);
    let mut three = gate.connect().await;
    three.write_all(get("/").as_bytes()).await.unwrap();
    let mut byte = [0];
    assert!(timeout(Duration::from_millis(300), three.read(&mut byte)).await.is_err(), "there are two");
    drop(one);
    assert_eq!(answer(&mut three).await.unwrap().body, "hi");
}

#[tokio::test]
async fn traffic_is_measured_in_the_conventions_names() {
    let app = App::http(|_, _| ok("hi")).await;
    let gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    assert_eq!(ask(&mut stream, &get("/secret?token=1")).await.unwrap().status, 200);
    assert_eq!(ask(&mut stream, "BREW / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap().status, 200);
    gate.counted_out().await;
    for method in ["GET", "_OTHER"] {
        let labels = format!(
            "{{http_request_method=\"{method}\",http_response_status_code=\"200\",network_protocol_version=\"1.1\"}}"
        );
        assert_eq!(gate.metric(&format!("http_server_request_duration_seconds_count{labels}")).await, 1.0);
    }
    assert_eq!(gate.metric("http_server_active_requests").await, 0.0);
    let (_, text) = gate.admin("GET /metrics", "").await;
    assert!(!text.contains("secret") && !gate.log().contains("secret"), "what is asked for is nobody else's");
    let documented = include_str!("../../../../docs/gate.md");
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(documented.contains(&format!("`{name}")), "{name} is not in docs/gate.md");
    }
}
