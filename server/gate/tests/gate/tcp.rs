//! Protocol Tcp: connections are what is in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::app::{App, expect};
use super::client::rest;
use super::gate::{Gate, PATIENCE};

async fn echo() -> App {
    App::new(|mut stream| async move {
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut piece).await {
            if stream.write_all(&piece[..read]).await.is_err() {
                return;
            }
        }
        let _ = stream.write_all(b"bye").await;
    })
    .await
}

#[tokio::test]
async fn a_connection_holds_the_drain_until_both_sides_have_ended() {
    let app = echo().await;
    let gate = Gate::before(app.port, &["--protocol", "Tcp"]).await;
    let mut stream = gate.connect().await;
    stream.write_all(b"one").await.unwrap();
    timeout(PATIENCE, expect(&mut stream, "one")).await.unwrap();
    let status = gate.drain(1, 0).await;
    assert_eq!((status.accepting, status.in_flight.requests), (false, 1));
    stream.write_all(b"two").await.unwrap();
    timeout(PATIENCE, expect(&mut stream, "two")).await.unwrap();
    if let Ok(mut refused) = TcpStream::connect(("127.0.0.1", gate.port)).await {
        let _ = refused.write_all(b"hello").await;
        assert!(timeout(PATIENCE, refused.read_u8()).await.unwrap().is_err(), "closed without a byte");
    }
    // One side has said its last, the other not yet.
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, "bye");
    gate.wait("idle", |status| status.is_idle()).await;
    assert_eq!(app.connections.load(Ordering::SeqCst), 1);
}

/// As for requests: racing connections are carried to their end or refused, and none reaches the app past the latch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_accepted_past_the_latched_answer_and_none_is_lost() {
    let latched = Arc::new(AtomicBool::new(false));
    let (late, reached) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let app = {
        let (latched, late, reached) = (latched.clone(), late.clone(), reached.clone());
        App::new(move |mut stream| {
            let (latched, late, reached) = (latched.clone(), late.clone(), reached.clone());
            async move {
                let mut byte = [0];
                if stream.read_exact(&mut byte).await.is_ok() {
                    reached.fetch_add(1, Ordering::SeqCst);
                    late.fetch_add(u64::from(latched.load(Ordering::SeqCst)), Ordering::SeqCst);
                    stream.write_all(b"ok").await.unwrap();
                }
            }
        })
        .await
    };
    let gate = Arc::new(Gate::before(app.port, &["--protocol", "Tcp"]).await);
    let (served, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (gate, served, refused, stop) = (gate.clone(), served.clone(), refused.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    // A refusal may be quicker than the client's own connect.
                    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", gate.port)).await else {
                        refused.fetch_add(1, Ordering::SeqCst);
                        continue;
                    };
                    let _ = stream.write_all(b"x").await;
                    match rest(&mut stream).await.as_str() {
                        "ok" => served.fetch_add(1, Ordering::SeqCst),
                        "" => refused.fetch_add(1, Ordering::SeqCst),
                        other => panic!("half an answer: {other}"),
                    };
                }
            })
        })
        .collect();
    for round in 0..10 {
        let before = served.load(Ordering::SeqCst);
        while served.load(Ordering::SeqCst) < before + 50 {
            sleep(Duration::from_millis(1)).await;
        }
        gate.drain(2 * round + 1, 0).await;
        gate.wait("idle", |status| status.is_idle()).await;
        latched.store(true, Ordering::SeqCst);
        let before = refused.load(Ordering::SeqCst);
        while refused.load(Ordering::SeqCst) < before + 20 {
            sleep(Duration::from_millis(1)).await;
        }
        latched.store(false, Ordering::SeqCst);
        gate.resume(2 * round + 2).await;
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(late.load(Ordering::SeqCst), 0);
    assert_eq!(reached.load(Ordering::SeqCst), served.load(Ordering::SeqCst));
    assert_eq!(gate.metric("graceful_gate_refused_total").await, refused.load(Ordering::SeqCst) as f64);
    gate.counted_out().await;
}

#[tokio::test]
async fn with_farewell_connections_are_closed_in_order_at_the_end() {
    let app = echo().await;
    let flags = ["--protocol", "Tcp", "--open-sockets", "Farewell", "--linger-seconds", "0"];
    let mut gate = Gate::before(app.port, &flags).await;
    let mut stream = gate.connect().await;
    stream.write_all(b"one").await.unwrap();
    timeout(PATIENCE, expect(&mut stream, "one")).await.unwrap();
    gate.drain(1, 0).await;
    assert_eq!(gate.wait("idle", |status| status.is_idle()).await.connections, 1);
    gate.signal("-TERM");
    let mut all = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut all)).await.unwrap();
    assert!(end.is_ok(), "an end, and no reset: {end:?}");
    drop(stream);
    assert_eq!(gate.exit().await.code(), Some(0));
}

#[tokio::test]
async fn the_proxy_protocol_says_who_the_client_is() {
    let app = App::new(|mut stream| async move {
        let said = rest(&mut stream).await;
        stream.write_all(said.as_bytes()).await.unwrap();
    })
    .await;
    let gate = Gate::before(app.port, &["--protocol", "Tcp", "--proxy-protocol", "V1"]).await;
    let mut stream = gate.connect().await;
    let from = stream.local_addr().unwrap().port();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let wanted = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {}\r\nhello", gate.port);
    assert_eq!(rest(&mut stream).await, wanted);
    let gate = Gate::before(app.port, &["--protocol", "Tcp", "--proxy-protocol", "V2"]).await;
    let mut stream = gate.connect().await;
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let said = rest(&mut stream).await;
    assert!(
        said.starts_with("\r\n\r\n\0\r\nQUIT\n!\u{11}\0\u{c}\u{7f}\0\0\u{1}") && said.ends_with("hello"),
        "{said:?}"
    );
}

#[tokio::test]
async fn an_app_that_is_not_there_is_an_end_and_no_hang() {
    let gate = Gate::before(App::none(), &["--protocol", "Tcp"]).await;
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", gate.port)).await {
        assert_eq!(rest(&mut stream).await, "");
    }
    gate.counted_out().await;
    assert_eq!(gate.metric("graceful_gate_app_faults_total{reason=\"not_there\"}").await, 1.0);
}
