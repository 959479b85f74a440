//! WebSockets and other upgrades: past the 101 both connections are bytes, and a tunnel of their own.

use graceful_drain::{ConnectionGuard, RequestGuard};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tracing::debug;

use super::Gate;
use crate::config::OpenSockets;
use crate::metrics::Open;
use crate::tunnel::{self, End, Goodbye};

/// What a socket is to the drain.
#[allow(dead_code, reason = "a guard is held to be dropped")]
enum Counted {
    /// In flight until it is closed.
    Held(RequestGuard),
    /// A connection, which is told at the end.
    Told(ConnectionGuard),
}

/// Opens the tunnel, once the client has been told of the upgrade. Counted without a gap: as a connection before it is counted out of the requests.
pub(super) fn start(
    gate: &Gate,
    (client, app): (OnUpgrade, OnUpgrade),
    websocket: bool,
    guard: RequestGuard,
) {
    let counted = match gate.open_sockets {
        OpenSockets::Hold => Counted::Held(guard),
        OpenSockets::Farewell => Counted::Told(gate.drain.connection()),
    };
    let goodbye = if websocket { Goodbye::WebSocket } else { Goodbye::Plain };
    let open = gate.metrics.socket();
    tokio::spawn(async move {
        let (Ok(client), Ok(app)) = tokio::join!(client, app) else {
            debug!("a client had gone before it was upgraded");
            return;
        };
        let (Some(client), Some(app)) = (end(client), end(app)) else { return };
        // A task of its own, made when both sockets are there: an idle socket then costs what its tunnel needs, and not the steps before it.
        tokio::spawn(tunnel(client, app, counted, goodbye, open));
    });
}

async fn tunnel(client: End, app: End, counted: Counted, goodbye: Goodbye, open: Open) {
    let farewell = match &counted {
        Counted::Held(_) => None,
        Counted::Told(connection) => Some((connection.farewell(), goodbye)),
    };
    if let Err(error) = tunnel::run(client, app, farewell).await {
        debug!(%error, "an upgraded connection ended");
    }
    drop((counted, open));
}

/// The socket itself, with what was read past the head.
fn end(upgraded: Upgraded) -> Option<End> {
    // Both sides are ours, and plain TCP.
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    // Registered anew: the old registration keeps the waker of the task that served the connection so far, and with it that task's memory, four KiB of it, for as long as
    // the socket is open.
    let stream = TcpStream::from_std(parts.io.into_inner().into_std().ok()?).ok()?;
    Some(End { stream, read: parts.read_buf })
}
