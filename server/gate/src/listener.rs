//! The public port: accepts clients, as many as there may be, each on a task of its own, until it is closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use graceful_drain::Drain;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::config::Run;
use crate::metrics::Metrics;
use crate::shards::{Shards, Side};
use crate::{http, tcp};

/// How long last answers may take to their clients once nothing is in flight. A client that takes nothing is cut by --unread-seconds before; the pod's grace
/// period bounds all of it.
const FLUSH: Duration = Duration::from_secs(30);

/// A client that vanished without a word is found by the kernel: asked after a minute of silence, given up after a few more questions. An open socket may
/// hold a drain up, and nobody else would notice.
const SILENCE: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_secs(10);

pub(crate) struct Listener {
    stop: CancellationToken,
    clients: TaskTracker,
}

impl Listener {
    pub(crate) fn open(
        listener: TcpListener,
        shards: Shards,
        flags: &Run,
        drain: &Drain,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let opened = Self { stop: CancellationToken::new(), clients: TaskTracker::new() };
        let (stop, clients) = (opened.stop.clone(), opened.clients.clone());
        let places = Arc::new(Semaphore::new(flags.max_connections.get()));
        let (unread, metrics, drain) = (flags.unread(), metrics.clone(), drain.clone());
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = accept(&listener, &places) => accepted,
                    () = stop.cancelled() => return,
                };
                let Some((stream, peer, place)) = accepted else { continue };
                prepare(&stream, unread);
                // Out of this thread's hands: its next bytes wake the shard's own.
                let (Ok(stream), Some(shard)) = (stream.into_std(), shards.idlest()) else { continue };
                let (side, stop, open) = (shard.side.clone(), stop.clone(), metrics.connection());
                let (drain, shared) = (drain.clone(), shard.place());
                let client = async move {
                    let Ok(stream) = TcpStream::from_std(stream) else { return };
                    match side {
                        Side::Http(gate) => http::client(gate, stream, peer, &drain, stop).await,
                        Side::Tcp(gate) => tcp::client(gate, stream, peer).await,
                    }
                    drop((open, place, shared));
                };
                clients.spawn_on(client, &shard.runtime);
            }
        });
        opened
    }

    /// Accepts no more, lets answers under way reach their clients, closes the rest.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.clients.close();
        if timeout(FLUSH, self.clients.wait()).await.is_err() {
            warn!(connections = self.clients.len(), "cut connections that did not take their answer");
        }
    }
}

/// The place first: where there is none, clients wait in the kernel and take no memory here.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, SocketAddr::new(peer.ip().to_canonical(), peer.port()), place)),
        Err(error) => {
            // Out of descriptors, most likely: others will close theirs.
            warn!(%error, "cannot accept a connection; retrying in 100 ms");
            sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

fn prepare(stream: &TcpStream, unread: Duration) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(SILENCE).with_interval(ASK_AGAIN);
    let set = stream.set_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive));
    #[cfg(target_os = "linux")]
    let set = set.and_then(|()| socket.set_tcp_user_timeout(Some(unread)));
    #[cfg(not(target_os = "linux"))]
    let _ = unread;
    if let Err(error) = set {
        debug!(%error, "cannot set a socket's options");
    }
}
