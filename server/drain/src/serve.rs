//! [`serve`]: two listeners, signals, and the order in which a process ends.
//!
//! Flow: a first SIGTERM → linger, still accepting → latch → nothing in flight → sockets are told → listeners close
//! → connections flush → return. The admin listener answers until the very end. A second signal returns at once; in a pod
//! only SIGINT does.

use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::bounds::Bounds;
use crate::descriptors::{self, Reserve};
use crate::drain::Drain;
use crate::listener::Listener;
use crate::signal::{Signal, Signals};
use crate::status::InFlight;

/// After the last farewell, how long a socket's peer has to answer the close frame. Half of it lets an app publish its last
/// events before the first close frame.
const CLOSE_HANDSHAKE: Duration = Duration::from_secs(1);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All that was accepted is done. Exit with 0.
    Drained,
    /// A second signal cut the drain short.
    Aborted {
        /// What was in flight and is lost.
        cut: InFlight,
        /// Sockets that were not told.
        connections: u64,
        /// 128 + the signal's number, as shells report it.
        code: i32,
    },
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Drained => 0,
            Self::Aborted { code, .. } => code,
        }
    }
}

/// [`serve_within`] the default bounds.
pub async fn serve(
    public: (TcpListener, Router),
    admin: (TcpListener, Router),
    drain: Drain,
    signals: Signals,
) -> Exit {
    serve_within(Bounds::default(), public, admin, drain, signals).await
}

/// Serves `app` on `public` (each request has its client's address as `ConnectInfo<SocketAddr>`) and the second router of `admin`, which needs
/// [`Drain::routes`], until a signal has drained the process.
///
/// Where as many connections are open as may be, those that had no request for a second are closed for newcomers. The admin port
/// has bounds and file descriptors of its own.
pub async fn serve_within(
    bounds: Bounds,
    (public, app): (TcpListener, Router),
    admin: (TcpListener, Router),
    drain: Drain,
    signals: Signals,
) -> Exit {
    let public = Listener::open(public, app, Some(drain.clone()), bounds, None);
    serve_behind(admin, drain, signals, public.close()).await
}

/// As [`serve`], for a process whose public side is its own: a proxy, another server, another protocol. `close` is awaited once nothing is in flight and
/// sockets have been told; it accepts no more and lets what it has sent reach its clients. It should bound itself.
pub async fn serve_behind(
    (admin, admin_app): (TcpListener, Router),
    drain: Drain,
    mut signals: Signals,
    close: impl Future<Output = ()>,
) -> Exit {
    let (_, few) = descriptors::connections();
    let few = Bounds::new(few, few);
    let admin = Listener::open(admin, admin_app, None, few, Some(Reserve::default()));

    let first = signals.next().await;
    let linger = match first {
        Signal::Terminate => drain.settings().linger,
        // Ctrl-C at a terminal: no endpoints have to propagate.
        Signal::Interrupt => Duration::ZERO,
    };
    let status = drain.terminate(linger);
    info!(
        signal = first.name(),
        in_flight = status.in_flight.total(),
        accepting = status.accepting,
        "terminating"
    );

    let orderly = async {
        drain.farewell_time().await;
        info!(connections = drain.status().connections, "nothing in flight: closing");
        let limit = drain.settings().farewell_spread + CLOSE_HANDSHAKE;
        if timeout(limit, drain.disconnected()).await.is_err() {
            warn!(connections = drain.status().connections, "cut sockets that did not answer their close");
        }
        close.await;
        drain.end();
        admin.close().await;
    };
    tokio::select! {
        () = orderly => Exit::Drained,
        second = until_aborted(&drain, &mut signals) => abort(&drain, second),
    }
}

/// The signal that cuts the drain short. In a pod that is no SIGTERM: containerd forgets over a restart that it has sent one, and
/// sends it again to a pod that may have hours of its grace left.
async fn until_aborted(drain: &Drain, signals: &mut Signals) -> Signal {
    let in_a_pod = !drain.settings().pod_uid.is_empty();
    loop {
        match signals.next().await {
            Signal::Terminate if in_a_pod => {
                info!(
                    in_flight = drain.status().in_flight.total(),
                    "a second SIGTERM changes nothing in a pod; SIGINT aborts"
                );
            }
            signal => return signal,
        }
    }
}

fn abort(drain: &Drain, signal: Signal) -> Exit {
    let status = drain.status();
    let InFlight { queued, running, requests } = status.in_flight;
    let connections = status.connections;
    warn!(
        signal = signal.name(),
        queued, running, requests, connections, "second signal: aborted, this is cut"
    );
    Exit::Aborted { cut: status.in_flight, connections, code: 128 + signal.number() }
}
