//! A relay between the operator and the API server that counts bytes and connections. TLS passes through it: what is
//! counted is what is on the wire, and the operator works as it would without.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Stops relaying when dropped.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    counts: Arc<Counts>,
    _task: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
    opened: AtomicU64,
}

/// What has passed so far, from the operator's point of view.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) connections: u64,
}

impl Relay {
    pub(super) async fn start(server: String) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("the relay's port")?;
        let address = listener.local_addr()?;
        let counts = Arc::<Counts>::default();
        let mut task = JoinSet::new();
        task.spawn(accept(listener, server, Arc::clone(&counts)));
        Ok(Self { address, counts, _task: task })
    }

    pub(super) fn traffic(&self) -> Traffic {
        let Counts { sent, received, opened } = &*self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Traffic { sent: read(sent), received: read(received), connections: read(opened) }
    }
}

async fn accept(listener: TcpListener, server: String, counts: Arc<Counts>) {
    let mut open = JoinSet::new();
    loop {
        // An error is one connection's (reset before it was accepted); the listener stays.
        let Ok((operator, _)) = listener.accept().await else { continue };
        counts.opened.fetch_add(1, Ordering::Relaxed);
        open.spawn(carry(operator, server.clone(), Arc::clone(&counts)));
        while open.try_join_next().is_some() {}
    }
}

/// Until both sides are done. A side that breaks ends the connection, as it would without a relay.
async fn carry(operator: TcpStream, server: String, counts: Arc<Counts>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    // A relay that held small writes back would slow every request.
    let _best_effort = (operator.set_nodelay(true), server.set_nodelay(true));
    let (from_operator, to_operator) = operator.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        copy(from_operator, to_server, &counts.sent),
        copy(from_server, to_operator, &counts.received)
    );
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, count: &AtomicU64) {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
        count.fetch_add(read as u64, Ordering::Relaxed);
    }
    let _closed_already = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_are_counted_each_way() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let relay = Relay::start(server.local_addr().unwrap().to_string()).await.unwrap();
        let mut client = TcpStream::connect(relay.address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let (mut other, _) = server.accept().await.unwrap();
        let mut heard = [0; 5];
        other.read_exact(&mut heard).await.unwrap();
        other.write_all(b"ok").await.unwrap();
        drop(other);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        let Traffic { sent, received, connections } = relay.traffic();
        assert_eq!((heard.as_slice(), answer.as_slice()), (&b"hello"[..], &b"ok"[..]));
        assert_eq!((sent, received, connections), (5, 2, 1));
    }
}
