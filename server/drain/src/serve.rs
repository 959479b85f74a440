//! [`serve`]: two listeners, signals, and the order in which a process ends.
//!
//! Flow: a first SIGTERM → linger, still accepting → latch → nothing in flight → sockets are told → listeners close
//! → connections flush → return. The admin listener answers until the very end. A second signal returns at once.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::drain::Drain;
use crate::gate::close_if_winding_down;
use crate::signal::{Signal, Signals};
use crate::status::InFlight;

/// How long a connection may take to send a request's head, idle time included: longer than the 60 s that common
/// proxies and clients keep an idle connection, so that it is they who close it and never a request that meets a
/// closing server; short enough to be rid of those that dawdle on purpose.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// Idle keep-alive connections are closed this long before the latch: their clients open a new one, to another pod,
/// instead of meeting a 503 here later. Half a second lets a request that crosses our FIN be sent anew while we
/// still accept. (A linger shorter than that closes them at its start.)
const KEEP_ALIVE_TAIL: Duration = Duration::from_millis(500);

/// After the last farewell, how long a socket's peer has to answer the close frame; half of it is for an app that looks
/// for last words before the first farewell.
const CLOSE_HANDSHAKE: Duration = Duration::from_secs(1);

/// How long a client may take nothing of what it is sent. Past it the kernel cuts the connection, and what waits in our
/// buffers for that client is freed: a stream to it has no other end. Linux counts a window of zero as well; elsewhere TCP
/// gives such a client up in its own time.
#[cfg(target_os = "linux")]
const UNREAD: Duration = Duration::from_secs(30);

/// Bounds a request's head, and what is buffered of a response that its client does not take: hyper's default is
/// 400 KiB.
const BUFFER: usize = 64 * 1024;

/// How long last responses may take from our buffer to the client once nothing is in flight.
const FLUSH: Duration = Duration::from_secs(2);

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

/// Serves `app` on `public` (each request has its client's address as `ConnectInfo<SocketAddr>`) and `admin_app` (with [`Drain::routes`]) on `admin` until a signal has drained it.
pub async fn serve(
    (public, app): (TcpListener, Router),
    (admin, admin_app): (TcpListener, Router),
    drain: Drain,
    mut signals: Signals,
) -> Exit {
    let public = Listener::open(public, app, Some(drain.clone()));
    let admin = Listener::open(admin, admin_app, None);

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
        public.close().await;
        drain.end();
        admin.close().await;
    };
    tokio::select! {
        () = orderly => Exit::Drained,
        second = signals.next() => abort(&drain, second),
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

/// One listener and its connections.
struct Listener {
    stop: CancellationToken,
    connections: TaskTracker,
}

impl Listener {
    /// Accepts until closed. With a drain, answers and idle connections wind down with it.
    fn open(listener: TcpListener, app: Router, drain: Option<Drain>) -> Self {
        let opened = Self { stop: CancellationToken::new(), connections: TaskTracker::new() };
        let (stop, connections) = (opened.stop.clone(), opened.connections.clone());
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stop.cancelled() => return,
                };
                match accepted {
                    Ok((stream, peer)) => {
                        connections.spawn(connection(stream, peer, app.clone(), drain.clone(), stop.clone()));
                    }
                    Err(error) => {
                        // Out of descriptors, most likely: others will close theirs.
                        warn!(%error, "cannot accept a connection; retrying in 100 ms");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        opened
    }

    /// Accepts no more, lets answers under way finish, closes the rest.
    async fn close(&self) {
        self.stop.cancel();
        self.connections.close();
        if timeout(FLUSH, self.connections.wait()).await.is_err() {
            warn!(connections = self.connections.len(), "cut connections that did not take their answer");
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    drain: Option<Drain>,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot set TCP_NODELAY");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD)) {
        debug!(%error, "cannot set TCP_USER_TIMEOUT");
    }
    let used = Arc::new(Notify::new());
    let service = {
        let (used, drain) = (used.clone(), drain.clone());
        service_fn(move |request| {
            used.notify_one();
            respond(app.clone(), peer, drain.clone(), request)
        })
    };
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(serving);
    let winding_down = async {
        let Some(drain) = drain else { return std::future::pending().await };
        // hyper would cut a connection that has not carried a request yet; its first one may be on the way.
        used.notified().await;
        drain.latching(KEEP_ALIVE_TAIL).await;
    };
    // Biased: the connection reads what has arrived before it is told to close, so that a request already here is
    // answered and not reset.
    let ended = tokio::select! {
        biased;
        ended = serving.as_mut() => Some(ended),
        () = winding_down => None,
        () = stop.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}

async fn respond(
    app: Router,
    peer: SocketAddr,
    drain: Option<Drain>,
    mut request: http::Request<Incoming>,
) -> Result<Response, Infallible> {
    let version = request.version();
    request.extensions_mut().insert(ConnectInfo(peer));
    let mut response = app.oneshot(request.map(Body::new)).await?;
    if let Some(drain) = drain {
        close_if_winding_down(&drain, version, &mut response);
    }
    Ok(response)
}
