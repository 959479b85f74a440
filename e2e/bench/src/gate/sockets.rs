//! Idle WebSockets through a proxy: what each costs it in memory of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::subject::{Bench, Subject};

const COUNT: usize = 10_000;

/// As many, or what this machine's limit of descriptors allows a proxy: it takes two for each.
pub(crate) fn count(bench: &Bench) -> usize {
    COUNT.min(bench.clients - 1)
}

/// From one address of loopback, of those that the subject has to itself: a port that was just used on one is not free again for a minute.
const FROM_ONE_ADDRESS: usize = 2_500;
const AT_ONCE: usize = 50;
const TIMEOUT: Duration = Duration::from_secs(30);
/// What handshakes leave behind is freed by then.
const REST: Duration = Duration::from_secs(5);

/// The proxy's own memory (heap and stacks) for each, in bytes.
pub(crate) async fn measure(bench: &Bench, subject: Subject) -> anyhow::Result<f64> {
    let running = subject.start(bench).await?;
    let proxy = running.proxy().context("there is no proxy to measure")?;
    // So that what the first of anything allocates is not counted as the sockets'.
    let count = count(bench);
    let mut open = vec![connect(running.address(), client(subject, count)).await?];
    sleep(REST).await;
    let before = proxy.memory_of_all()?;
    for first in (0..count).step_by(AT_ONCE) {
        let some =
            (first..count.min(first + AT_ONCE)).map(|n| connect(running.address(), client(subject, n)));
        open.extend(futures::future::try_join_all(some).await?);
    }
    sleep(REST).await;
    let after = proxy.memory_of_all()?;
    for socket in &open {
        // Still open: there is nothing to read, not even an end.
        let unread = socket.try_read(&mut [0]);
        let waits = unread.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        ensure!(waits, "an idle socket did not stay idle: {unread:?}");
    }
    drop(open);
    running.end().await?;
    Ok(after.anonymous.saturating_sub(before.anonymous) as f64 / count as f64)
}

/// Where the client of this number comes from.
fn client(subject: Subject, n: usize) -> Ipv4Addr {
    let network = Ipv4Addr::new(127, 0, 1 + subject as u8, 1);
    Ipv4Addr::from_bits(network.to_bits() + (n / FROM_ONE_ADDRESS) as u32)
}

async fn connect(address: SocketAddr, from: Ipv4Addr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let mut stream = socket.connect(address).await.with_context(|| format!("from {from}"))?;
    let upgrade = "GET /socket HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await?;
    timeout(TIMEOUT, upgraded(&mut stream)).await.with_context(|| format!("from {from}: no answer"))??;
    Ok(stream)
}

async fn upgraded(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        ensure!(stream.read_buf(&mut got).await? > 0, "refused: {}", String::from_utf8_lossy(&got));
    }
    ensure!(got.starts_with(b"HTTP/1.1 101"), "refused: {}", String::from_utf8_lossy(&got));
    Ok(())
}
