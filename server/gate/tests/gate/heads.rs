//! Heads: nothing is rewritten but what a proxy must, and what cannot be passed on safely is refused.

use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;

use super::app::{App, header, ok};
use super::client::{answer, ask, get, rest};
use super::gate::Gate;

#[tokio::test]
async fn a_request_reaches_the_app_as_it_was_sent() {
    let seen = Arc::new(Mutex::new(String::new()));
    let app = {
        let seen = seen.clone();
        App::http(move |head, body| {
            *seen.lock().unwrap() = format!("{head}{body}");
            ok("")
        })
        .await
    };
    let gate = Gate::before(app.port, &[]).await;
    let sent = "PUT /a%20b//../c?x=1&y=%2F HTTP/1.1\r\nHost: a.example:81\r\nX-Mixed-Case: one\r\nX-Mixed-Case: two\r\n\
                traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\ntracestate: v=1\r\n\
                Authorization: Bearer secret\r\nAccept-Encoding: gzip, br\r\nContent-Length: 2\r\n";
    let got =
        ask(&mut gate.connect().await, &format!("{sent}Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\r\nhi"))
            .await;
    assert_eq!(got.unwrap().status, 200);
    let seen = seen.lock().unwrap().clone();
    let mut wanted: Vec<_> = sent.trim_end().split("\r\n").collect();
    wanted.push("X-Forwarded-For: 127.0.0.1");
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    let mut found: Vec<_> = head.split("\r\n").collect();
    assert_eq!(found.remove(0), wanted.remove(0));
    // Names of the gate's own are in lower case, as HTTP/2 has them.
    let sorted = |mut lines: Vec<&str>| {
        lines.sort_unstable();
        lines.join("\n").replace("X-Forwarded-For", "x-forwarded-for")
    };
    let mut found = sorted(found).lines().map(ToOwned::to_owned).collect::<Vec<_>>();
    let mut wanted = sorted(wanted).lines().map(ToOwned::to_owned).collect::<Vec<_>>();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!((found, body), (wanted, "hi"));
}

#[tokio::test]
async fn an_answer_reaches_the_client_as_it_was_sent() {
    let sent = "HTTP/1.1 299 Just So\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Mixed-Case: yes\r\nContent-Length: 2\r\n";
    let app = App::http(move |_, _| format!("{sent}Keep-Alive: timeout=5\r\n\r\nhi")).await;
    let gate = Gate::before(app.port, &[]).await;
    let got = ask(&mut gate.connect().await, &get("/")).await.unwrap();
    let mut found: Vec<_> = got.head.trim_end().split("\r\n").collect();
    let mut wanted: Vec<_> = sent.trim_end().split("\r\n").collect();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!((found, got.body.as_str()), (wanted, "hi"));
}

#[tokio::test]
async fn the_client_is_told_in_the_headers_that_are_asked_for() {
    let app = App::http(|head, _| {
        let of = |name| header(head, name).unwrap_or("-").to_owned();
        ok(&format!("{} | {}", of("x-forwarded-for"), of("forwarded")))
    })
    .await;
    for (flags, given, wanted) in [
        (&[][..], "", "127.0.0.1 | -"),
        (
            &[],
            "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n",
            "192.0.2.1, 127.0.0.1 | for=192.0.2.1, for=127.0.0.1",
        ),
        (&["--forwarded", "Both"], "", "127.0.0.1 | for=127.0.0.1"),
        (&["--forwarded", "None"], "", "- | -"),
    ] {
        let gate = Gate::before(app.port, flags).await;
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{given}\r\n");
        assert_eq!(ask(&mut gate.connect().await, &request).await.unwrap().body, wanted, "{flags:?}");
    }
}

#[tokio::test]
async fn old_clients_are_served() {
    let app = App::http(|head, _| {
        assert!(head.starts_with("GET / HTTP/1.1\r\n") && header(head, "host").is_some(), "{head}");
        ok("hi")
    })
    .await;
    let gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let got = rest(&mut stream).await;
    assert!(got.starts_with("HTTP/1.0 200 OK\r\n") && got.ends_with("\r\n\r\nhi"), "{got}");
}

/// What makes two servers see two requests where there is one, or one where there are two.
#[tokio::test]
async fn what_cannot_be_passed_on_safely_is_refused() {
    let app = App::http(|head, _| ok(head)).await;
    let gate = Gate::before(app.port, &[]).await;
    for (lines, wanted) in [
        ("CONNECT a.example:80 HTTP/1.1\r\nHost: a.example\r\n\r\n", &[405][..]),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", &[501]),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", &[400]),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na", &[400]),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", &[400, 501]),
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\nHost: x\r\nA\0: b\r\n\r\n", &[400]),
        ("GET / HTTP/9.9\r\nHost: x\r\n\r\n", &[400, 505]),
    ] {
        let mut stream = gate.connect().await;
        stream.write_all(lines.as_bytes()).await.unwrap();
        let got = answer(&mut stream).await.map_or(0, |got| got.status);
        assert!(wanted.contains(&got), "{lines:?}: {got}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "x".repeat(80 * 1024));
    assert_eq!(ask(&mut gate.connect().await, &long).await.unwrap().status, 431);
    let far = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(80 * 1024));
    assert!([414, 431].contains(&ask(&mut gate.connect().await, &far).await.unwrap().status));
    gate.counted_out().await;
}

/// RFC 9112 §6.1: with both, the coding holds, and the length must not go on: the next server could believe it.
#[tokio::test]
async fn a_length_beside_chunks_does_not_go_on() {
    let app = App::new(|mut stream| async move {
        let head = super::app::head(&mut stream).await.unwrap();
        assert_eq!(
            (header(&head, "content-length"), header(&head, "transfer-encoding")),
            (None, Some("chunked"))
        );
        super::app::expect(&mut stream, "2\r\nhi\r\n0\r\n\r\n").await;
        stream.write_all(ok("fine").as_bytes()).await.unwrap();
    })
    .await;
    let gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let got = answer(&mut stream).await.map(|got| (got.status, got.body));
    assert!(got == Some((200, "fine".to_owned())) || got.is_some_and(|(status, _)| status == 400));
}
