//! Bodies stream: each piece goes on as it comes, both ways, with trailers, and only once somebody wants it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::app::{self, App, expect, ok};
use super::client::{answer, ask, get, post, rest};
use super::gate::{Gate, PATIENCE};

/// Each piece is waited for on the other side before the next is sent: whoever holds one back hangs here.
#[tokio::test]
async fn bodies_stream_both_ways_without_buffering() {
    let app = App::new(|mut stream| async move {
        app::head(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        for piece in ["one", "two", "three"] {
            expect(&mut stream, &format!("{:x}\r\n{piece}\r\n", piece.len())).await;
            stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await.unwrap();
        }
        expect(&mut stream, "0\r\n\r\n").await;
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    })
    .await;
    let gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    let talk = async {
        app::head(&mut stream).await.unwrap();
        for piece in ["one", "two", "three"] {
            stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await.unwrap();
            expect(&mut stream, &format!("{}\r\n{piece}\r\n", piece.len())).await;
            assert_eq!(gate.status().await.in_flight.requests, 1, "a stream is in flight while it lasts");
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        expect(&mut stream, "0\r\n\r\n").await;
    };
    timeout(PATIENCE, talk).await.expect("no piece is held back");
    gate.counted_out().await;
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let app = App::new(|mut stream| async move {
        let head = app::head(&mut stream).await.unwrap();
        assert_eq!((app::header(&head, "te"), app::header(&head, "trailer")), (Some("trailers"), Some("x-sum")));
        expect(&mut stream, "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n").await;
        let answer = "HTTP/1.1 200 OK\r\ntrailer: x-end\r\ntransfer-encoding: chunked\r\n\r\n2\r\nyo\r\n0\r\nx-end: 2\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    let request = "POST / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    app::head(&mut stream).await.unwrap();
    timeout(PATIENCE, expect(&mut stream, "2\r\nyo\r\n0\r\nx-end: 2\r\n\r\n")).await.unwrap();
}

#[tokio::test]
async fn much_passes_whole() {
    const SIZE: usize = 20_000_000;
    let app = App::new(|mut stream| async move {
        app::head(&mut stream).await.unwrap();
        let mut body = vec![0; SIZE];
        stream.read_exact(&mut body).await.unwrap();
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        stream.write_all(&body).await.unwrap();
    })
    .await;
    let gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    let body: String = (0..SIZE).map(|i| char::from(b'a' + (i % 23) as u8)).collect();
    stream.write_all(post("/", &body).as_bytes()).await.unwrap();
    let got = answer(&mut stream).await.unwrap();
    assert!(got.body == body, "{} of {SIZE} bytes", got.body.len());
    gate.counted_out().await;
}

/// The client may send its body only when the app wants it, and not because a proxy does.
#[tokio::test]
async fn a_body_that_the_app_must_want_first_waits_for_its_word() {
    let wanted = Arc::new(Notify::new());
    let app = {
        let wanted = wanted.clone();
        App::new(move |mut stream| {
            let wanted = wanted.clone();
            async move {
                let head = app::head(&mut stream).await.unwrap();
                assert_eq!(app::header(&head, "expect"), Some("100-continue"));
                if head.starts_with("POST /no") {
                    stream.write_all(b"HTTP/1.1 417 No\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    assert_eq!(rest(&mut stream).await, "", "no byte of a body that nobody wanted");
                    wanted.notify_one();
                    return;
                }
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
                expect(&mut stream, "hi").await;
                stream.write_all(ok("took it").as_bytes()).await.unwrap();
            }
        })
        .await
    };
    let gate = Gate::before(app.port, &[]).await;
    let request = |path| {
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    };
    let mut stream = gate.connect().await;
    assert_eq!(ask(&mut stream, &request("/no")).await.unwrap().status, 417);
    drop(stream);
    timeout(PATIENCE, wanted.notified()).await.unwrap();
    let mut stream = gate.connect().await;
    assert_eq!(ask(&mut stream, &request("/yes")).await.unwrap().status, 100);
    assert_eq!(ask(&mut stream, "hi").await.unwrap().body, "took it");
    gate.counted_out().await;
}

#[tokio::test]
async fn an_app_that_never_says_continue_gets_its_body_all_the_same() {
    let app = App::http(|_, body| ok(body)).await;
    let gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    let request = "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(ask(&mut stream, request).await.unwrap().status, 100, "the gate says it in the app's place");
    assert_eq!(ask(&mut stream, "hi").await.unwrap().body, "hi");
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let app = App::http(|head, body| if head.starts_with("GET") { ok("") } else { ok(body) }).await;
    let gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    for _ in 0..50 {
        assert_eq!(ask(&mut stream, &get("/")).await.unwrap().status, 200);
        assert_eq!(ask(&mut stream, &post("/", "hi")).await.unwrap().body, "hi");
    }
    let connections = app.connections.load(Ordering::SeqCst);
    // A machine that is busy may pause for longer than a connection is kept.
    assert!(connections < 50, "{connections} connections to the app for 100 requests, one after the other");
}

#[tokio::test]
async fn an_answer_to_head_or_without_a_body_ends_with_its_head() {
    let app = App::http(|head, _| match head {
        head if head.starts_with("HEAD") => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".to_owned(),
        head if head.contains("/none") => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        _ => "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n".to_owned(),
    })
    .await;
    let gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    stream.write_all(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let head = timeout(PATIENCE, app::head(&mut stream)).await.unwrap().unwrap();
    assert_eq!(app::header(&head, "content-length"), Some("5"));
    for (path, status) in [("/none", 204), ("/same", 304)] {
        assert_eq!(ask(&mut stream, &get(path)).await.unwrap().status, status, "on the same connection");
    }
    gate.counted_out().await;
}

/// An app that answers before it has read the request through, and ends.
#[tokio::test]
async fn an_early_answer_passes_while_the_body_is_still_sent() {
    let app = App::new(|mut stream| async move {
        app::head(&mut stream).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\nconnection: close\r\n\r\nlong")
            .await
            .unwrap();
        // It reads on for a while, as servers do, so that its answer is not lost to a reset.
        let _ = timeout(PATIENCE, rest(&mut stream)).await;
    })
    .await;
    let gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nbegun").await.unwrap();
    let got = answer(&mut stream).await.unwrap();
    assert_eq!((got.status, got.body.as_str()), (413, "long"));
    drop(stream);
    gate.counted_out().await;
}
