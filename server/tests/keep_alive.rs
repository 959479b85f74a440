//! Keep-alive clients through a drain: no request that was sent is left without an answer.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod child;

use child::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A client as plain as can be: what it sees is what the server does, not what a library makes good.
struct Client {
    port: u16,
    stream: TcpStream,
}

struct Answer {
    status: u16,
    close: bool,
}

impl Client {
    async fn connect(port: u16) -> Self {
        Self { port, stream: TcpStream::connect(("127.0.0.1", port)).await.unwrap() }
    }

    /// One submit on the open connection.
    async fn submit(&mut self) -> std::io::Result<Answer> {
        self.stream
            .write_all(b"POST /v1/create-task/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            .await?;
        let mut text = String::new();
        let mut piece = [0; 4096];
        let length = loop {
            let read = self.stream.read(&mut piece).await?;
            if read == 0 {
                return Err(std::io::Error::other(format!("closed without an answer, after {text:?}")));
            }
            text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if body.len() >= length.parse().unwrap() {
                    break head.to_owned();
                }
            }
        };
        let status = length.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(Answer { status, close: length.contains("connection: close") })
    }

    async fn reconnect(&mut self) {
        *self = Self::connect(self.port).await;
    }
}

#[tokio::test]
async fn a_busy_keep_alive_client_gets_an_answer_to_each_request() {
    let mut server = Server::start(&["--task-seconds", "0", "--queue-capacity", "100000"]).await;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let port = server.public;
            tokio::spawn(async move {
                let mut client = Client::connect(port).await;
                let (mut accepted, mut told) = (0, 0);
                loop {
                    let answer = client.submit().await.expect("a request that was sent is answered");
                    match answer.status {
                        200 => accepted += 1,
                        503 => return (accepted, told, answer.close),
                        other => panic!("{other}"),
                    }
                    if answer.close {
                        told += 1;
                        client.reconnect().await;
                    }
                }
            })
        })
        .collect();
    server.drained_to(|status| status["inFlight"]["total"] != 0).await;
    server.drain(1, 1).await;
    let mut all = 0;
    for client in clients {
        let (accepted, told, close) = client.await.unwrap();
        assert!(told > 0, "while it lingers each answer says to go elsewhere");
        assert!(close, "a refusal too");
        all += accepted;
    }
    server.drained_to(|status| status["state"] == "Idle").await;
    server.signal("TERM");
    assert_eq!(server.exit().await, 0);
    assert_eq!(server.logged("processed").len(), all, "accepted by their count, processed by the server's");
}

#[tokio::test]
async fn an_idle_connection_is_closed_while_its_next_request_would_still_be_served() {
    let server = Server::start(&["--task-seconds", "0"]).await;
    let mut client = Client::connect(server.public).await;
    assert!(!client.submit().await.unwrap().close);
    server.drain(1, 2).await;
    assert_eq!(client.stream.read(&mut [0; 1]).await.unwrap(), 0, "closed, not reset");
    let status = server.status().await;
    assert_eq!((&status["state"], &status["accepting"]), (&"Lingering".into(), &true.into()));
    client.reconnect().await;
    let answer = client.submit().await.unwrap();
    assert_eq!((answer.status, answer.close), (200, true));
}

#[tokio::test]
async fn a_connection_whose_first_request_is_late_is_still_answered() {
    let server = Server::start(&["--task-seconds", "0"]).await;
    let mut client = Client::connect(server.public).await;
    server.drain(1, 0).await;
    server.drained_to(|status| status["state"] == "Idle").await;
    let answer = client.submit().await.unwrap();
    assert_eq!((answer.status, answer.close), (503, true));
}
