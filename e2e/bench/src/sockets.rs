//! Idle WebSockets: what each costs the server in memory, and what their company costs a submit.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use graceful_process::allow_open_files;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::load::{Load, drive, request};
use crate::subject::{Bench, Subject, Tasks};
use crate::submit::CONNECTIONS;

/// As many as a server of this size may have to hold.
pub(crate) const COUNT: usize = 10_000;
/// The server's end of each, or ours; and some for all else.
const DESCRIPTORS: u64 = 11_000;
/// From one address; the server's own limit is 4096 for each.
const FROM_ONE_ADDRESS: usize = 2_500;
/// Opened at the same time.
const AT_ONCE: usize = 50;
const TIMEOUT: Duration = Duration::from_secs(30);
/// What handshakes leave behind is freed by then, and no ping has come yet.
const REST: Duration = Duration::from_secs(3);

/// What they came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sockets {
    pub(crate) count: usize,
    /// Of the server's own memory (heap and stacks), each.
    pub(crate) bytes_each: f64,
    /// Of the server in memory, with them, in bytes.
    pub(crate) at_count: u64,
    /// Submits in a second while they are open.
    pub(crate) submits_per_second: f64,
}

/// Opens them on a server with SQLite.
pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Sockets> {
    allow_open_files(DESCRIPTORS)?;
    let running = Subject::Sqlite.start(bench, Tasks::WAIT).await?;
    let address = running.server.address;
    // So that what the first of anything allocates is not counted as the sockets'.
    let mut open = vec![connect(address, COUNT).await?];
    sleep(REST).await;
    let before = running.server.memory()?;
    for first in (0..COUNT).step_by(AT_ONCE) {
        let some = (first..first + AT_ONCE).map(|n| connect(address, n));
        open.extend(futures::future::try_join_all(some).await?);
    }
    sleep(REST).await;
    let after = running.server.memory()?;
    let grown = after.anonymous.saturating_sub(before.anonymous);
    let load = Load {
        connections: CONNECTIONS,
        warm_up: Duration::from_secs(1),
        measured: Duration::from_secs(3),
        every: None,
    };
    let driven = drive(address, &request("POST", "/v1/create-task/"), load).await?;
    for socket in &open {
        // Still open: there is nothing to read, not even an end.
        let unread = socket.try_read(&mut [0]);
        let waits = unread.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        ensure!(waits, "an idle socket did not stay idle: {unread:?}");
    }
    drop(open);
    running.end(bench).await?;
    Ok(Sockets {
        count: COUNT,
        bytes_each: grown as f64 / COUNT as f64,
        at_count: after.resident,
        submits_per_second: driven.per_second,
    })
}

/// A WebSocket that has had its first frame and says nothing. By hand: a client library's buffers times ten thousand
/// would be ours to hold.
async fn connect(address: SocketAddr, n: usize) -> anyhow::Result<TcpStream> {
    let from = Ipv4Addr::LOCALHOST.to_bits() + u32::try_from(n / FROM_ONE_ADDRESS)?;
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::from_bits(from), 0).into())?;
    let mut stream = socket.connect(address).await.with_context(|| format!("socket {n}"))?;
    let upgrade = format!(
        "GET /ws/bench-{n} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await?;
    timeout(TIMEOUT, first_frame(&mut stream))
        .await
        .with_context(|| format!("socket {n}: no first frame"))??;
    Ok(stream)
}

async fn first_frame(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut got = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut got).await? > 0, "refused: {}", String::from_utf8_lossy(&got));
        let Some(head) = got.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        ensure!(got.starts_with(b"HTTP/1.1 101"), "refused: {}", String::from_utf8_lossy(&got));
        // A short text frame: two bytes of head, the second its length.
        if let Some(&[kind, length]) = got.get(head + 4..head + 6) {
            ensure!(kind == 0x81 && length < 126, "an unexpected first frame: {kind:#x}, {length} bytes");
            if got.len() == head + 6 + usize::from(length) {
                return Ok(());
            }
        }
    }
}
