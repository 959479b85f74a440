//! What clients can make a server take up in memory, all at once, stays below the limit that `samples/tasks.yaml` sets.
//!
//! Measured as the peak of the process's resident memory; what the kernel holds for sockets is not in it, and is what the
//! kernel takes back first when a container's memory is short.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod child;

use std::time::Duration;

use child::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Far beyond what anything here takes, on a loaded machine too: a connection that the kernel turned away once is tried again
/// after up to a minute.
const TIMEOUT: Duration = Duration::from_secs(300);
const MEBI: usize = 1 << 20;

/// The memory limit of the sample's container, in MiB.
fn limit() -> usize {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/tasks.yaml");
    let text = std::fs::read_to_string(sample).unwrap();
    let line = text.lines().find(|line| line.trim().starts_with("limits: {memory: ")).unwrap();
    line.trim().trim_start_matches("limits: {memory: ").trim_end_matches("Mi}").parse().unwrap()
}

/// The most that the process has had resident, in MiB.
fn peak(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

/// Sends what the server will take within a moment, and keeps the connection.
async fn send(port: u16, bytes: &[u8]) -> TcpStream {
    let mut stream = timeout(TIMEOUT, TcpStream::connect(("127.0.0.1", port))).await.unwrap().unwrap();
    // Where there is no room the server does not read, and the rest stays here.
    let _ = timeout(Duration::from_millis(20), stream.write_all(bytes)).await;
    stream
}

/// A whole submission with an input of so many bytes.
fn submission(bytes: usize) -> Vec<u8> {
    let body = format!("{{\"input\":{{{}}}}}", " ".repeat(bytes));
    let head = "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn the_worst_that_clients_can_do_fits_into_the_samples_memory() {
    let server = Server::start(&["--task-seconds", "600", "--concurrency", "1"]).await;
    let (port, pid) = (server.public, server.pid());
    for _ in 0..12 {
        let mut stream = send(port, &submission(240 << 10)).await;
        let mut answer = [0; 12];
        timeout(TIMEOUT, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 202");
    }
    let before = peak(pid);
    let mut held = Vec::new();
    // Bodies that lack their last byte: 900 of them were 390 MiB once.
    let mut body = submission(250 << 10);
    body.pop();
    for _ in 0..900 {
        held.push(send(port, &body).await);
    }
    let bodies = peak(pid);
    // Pages of a MiB that nobody reads.
    for _ in 0..300 {
        held.push(send(port, b"GET /v1/tasks?limit=100 HTTP/1.1\r\nHost: localhost\r\n\r\n").await);
    }
    let lists = peak(pid);
    // Heads that never end.
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}", "x".repeat(15 << 10));
    for _ in 0..800 {
        held.push(send(port, head.as_bytes()).await);
    }
    let most = peak(pid);
    println!(
        "{before} MiB before, {bodies} with bodies, {lists} with lists, {most} with heads; {} is the limit",
        limit()
    );
    assert!(
        most < limit(),
        "{before} MiB before, {bodies} with bodies, {lists} with lists, {most} with heads"
    );
    assert!(bodies * MEBI < 900 * body.len(), "bodies are not all in memory");
    assert_eq!(server.status().await["state"], "Serving");
    server.submit().await;
    drop(held);
}
