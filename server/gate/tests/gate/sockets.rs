//! WebSockets and other upgrades: they pass, and a drain waits for them or says goodbye, as was asked for.

use futures::{SinkExt, StreamExt};
use graceful_drain::SERVICE_RESTART;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_async, connect_async};

use super::app::{self, App, expect};
use super::client::{ask, get, rest};
use super::gate::{Gate, PATIENCE};

/// Echoes each message, until its client says goodbye.
async fn echo() -> App {
    App::new(|stream| async move {
        let Ok(mut socket) = accept_async(stream).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn connect(gate: &Gate) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
    let (mut socket, _) = connect_async(format!("ws://127.0.0.1:{}/ws", gate.port)).await.unwrap();
    say(&mut socket, "hello").await;
    socket
}

async fn say(socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>, text: &str) {
    socket.send(text.into()).await.unwrap();
    assert_eq!(timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap(), Message::from(text));
}

#[tokio::test]
async fn an_open_socket_holds_the_drain() {
    let app = echo().await;
    let gate = Gate::before(app.port, &[]).await;
    let mut socket = connect(&gate).await;
    let status = gate.drain(1, 0).await;
    assert_eq!((status.accepting, status.in_flight.requests, status.connections), (false, 1, 0));
    say(&mut socket, &"long ".repeat(50_000)).await;
    let refused = connect_async(format!("ws://127.0.0.1:{}/ws", gate.port)).await.unwrap_err();
    assert!(refused.to_string().contains("503"), "{refused}");
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    drop(socket);
    gate.wait("idle", |status| status.is_idle()).await;
}

/// Sockets hold nothing up; once the process ends each is told in its own language, and may still say its last word.
#[tokio::test]
async fn open_sockets_are_told_at_the_end() {
    let app = echo().await;
    let mut gate = Gate::before(app.port, &["--open-sockets", "Farewell", "--linger-seconds", "0"]).await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(connect(&gate).await);
    }
    gate.drain(1, 0).await;
    let status = gate.wait("idle", |status| status.is_idle()).await;
    assert_eq!(status.connections, 20);
    assert_eq!(gate.metric("graceful_gate_sockets").await, 20.0);
    for socket in &mut sockets {
        say(socket, "still here").await;
    }
    gate.signal("-TERM");
    let told = sockets.into_iter().map(|mut socket| async move {
        let last = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        let Message::Close(Some(frame)) = last else { panic!("{last:?}") };
        assert_eq!(u16::from(frame.code), SERVICE_RESTART);
        while let Some(Ok(_)) = socket.next().await {}
    });
    futures::future::join_all(told).await;
    assert_eq!(gate.exit().await.code(), Some(0));
}

/// The goodbye must not land in the middle of a message.
#[tokio::test]
async fn a_farewell_waits_for_the_end_of_a_frame() {
    let app = App::new(|mut stream| async move {
        let head = app::head(&mut stream).await.unwrap();
        assert_eq!(app::header(&head, "upgrade"), Some("websocket"));
        let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        // Half of a frame of 6; the rest once the client has asked for it.
        stream.write_all(b"\x81\x06hal").await.unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        stream.write_all(b"f-f\x81\x04more").await.unwrap();
        let _ = stream.read(&mut byte).await;
    })
    .await;
    let gate = Gate::before(app.port, &["--open-sockets", "Farewell", "--linger-seconds", "0"]).await;
    let mut stream = gate.connect().await;
    let ask = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    app::head(&mut stream).await.unwrap();
    let mut half = [0; 5];
    timeout(PATIENCE, stream.read_exact(&mut half)).await.unwrap().unwrap();
    assert_eq!(&half, b"\x81\x06hal");
    gate.signal("-TERM");
    stream.write_all(b"!").await.unwrap();
    let got = rest(&mut stream).await;
    assert!(got.contains("f-f") && got.contains("service restart"), "{got:?}");
}

/// Anything that is asked for and agreed to passes, not WebSockets alone; bytes that come with the head too.
#[tokio::test]
async fn other_upgrades_pass() {
    let app = App::new(|mut stream| async move {
        let head = app::head(&mut stream).await.unwrap();
        assert_eq!((app::header(&head, "upgrade"), app::header(&head, "connection")), (Some("mine"), Some("upgrade")));
        let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: mine\r\nx-more: 1\r\n\r\nfirst";
        stream.write_all(answer.as_bytes()).await.unwrap();
        expect(&mut stream, "early and late").await;
        stream.write_all(b"last").await.unwrap();
    })
    .await;
    let gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    let ask = "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: mine\r\n\r\nearly";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let head = app::head(&mut stream).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101") && app::header(&head, "x-more") == Some("1"), "{head}");
    expect(&mut stream, "first").await;
    assert_eq!(gate.status().await.in_flight.requests, 1);
    stream.write_all(b" and late").await.unwrap();
    assert_eq!(rest(&mut stream).await, "last");
    drop(stream);
    gate.counted_out().await;
}

/// An app that does not agree answers as ever, and h2c by upgrade is answered in HTTP/1.1.
#[tokio::test]
async fn an_upgrade_that_the_app_ignores_is_a_request() {
    let app = App::http(|head, _| app::ok(app::header(head, "upgrade").unwrap_or("none"))).await;
    let gate = Gate::before(app.port, &[]).await;
    let mut stream = gate.connect().await;
    for (asked, seen) in [("mine", "mine"), ("h2c", "none")] {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {asked}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        );
        assert_eq!(ask(&mut stream, &request).await.unwrap().body, seen);
    }
    assert_eq!(ask(&mut stream, &get("/")).await.unwrap().body, "none", "on the same connection");
    gate.counted_out().await;
}
