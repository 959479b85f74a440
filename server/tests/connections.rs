//! Those who connect and say nothing shut nobody out, however few descriptors there are.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod child;

use std::time::Duration;

use child::{Folder, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Far beyond what anything here takes, on a loaded machine too.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A server in a shell with these limits of open files.
async fn limited(soft: u32, hard: u32, args: &[&str]) -> (Server, Folder) {
    let folder = Folder::new();
    let data = folder.0.join("data");
    let args = [&["--data", data.to_str().unwrap()], args].concat();
    (Server::launch_in(&["sh"], &format!("ulimit -Sn {soft} && ulimit -Hn {hard}"), &args).await, folder)
}

async fn connect(port: u16, connections: usize) -> Vec<TcpStream> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(timeout(TIMEOUT, TcpStream::connect(("127.0.0.1", port))).await.unwrap().unwrap());
    }
    open
}

/// Asks on a connection that stays open; the status line.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let mut piece = [0; 1024];
    while !answer.ends_with("ok\n") {
        let read = timeout(TIMEOUT, stream.read(&mut piece)).await.expect("an answer in time").unwrap();
        assert_ne!(read, 0, "closed after {answer:?}");
        answer.push_str(std::str::from_utf8(&piece[..read]).unwrap());
    }
    answer.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn idle_connections_silence_neither_port() {
    let (mut server, _folder) = limited(128, 128, &["--linger-seconds", "0", "--task-seconds", "0"]).await;
    let public = connect(server.public, 400).await;
    let admin = connect(server.admin, 400).await;
    // Half a head: it is the connection's first, and no request yet.
    let mut slow = connect(server.public, 100).await;
    for stream in &mut slow {
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nX-").await;
    }
    let status = timeout(TIMEOUT, server.status()).await.expect("the admin port answers");
    assert_eq!(status["state"], "Serving", "{status}");
    timeout(TIMEOUT, server.submit()).await.expect("the public port answers");
    server.signal("TERM");
    assert_eq!(server.exit().await, 0);
    let said = server.logged("as many connections are open as may be").len();
    assert!((1..20).contains(&said), "said now and then, and not for each of 900 connections: {said}");
    drop((public, admin, slow));
}

#[tokio::test]
async fn a_soft_limit_is_raised_to_the_hard_one() {
    let (server, _folder) = limited(64, 4096, &[]).await;
    let mut open = connect(server.public, 300).await;
    for stream in &mut open {
        assert_eq!(ask(stream).await, "HTTP/1.1 200 OK");
    }
    for stream in &mut open {
        assert_eq!(ask(stream).await, "HTTP/1.1 200 OK", "none was closed: there is room for all");
    }
    let said = server.logged("the hard limit of open files");
    assert_eq!(said[0]["connections"], 3840, "of 2,048 and 10,240: 4,096 less the rest");
}
