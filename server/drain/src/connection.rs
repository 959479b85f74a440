//! One connection, from its accept to its end: what it may cost, and when it is told to wind down.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;
#[cfg(feature = "http2")]
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::debug;

use crate::drain::Drain;
use crate::gate::close_if_winding_down;
#[cfg(feature = "http2")]
use crate::http2;

/// How long a connection may take to send a request's head, idle time included: longer than the 60 s that common
/// proxies and clients keep an idle connection, so that it is they who close it and never a request that meets a
/// closing server; short enough to be rid of clients that dawdle on purpose (slowloris).
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// Idle keep-alive connections are closed this long before the latch: their clients open a new one, to another pod,
/// instead of meeting a 503 here later. Half a second lets a request that crosses our FIN be sent anew while we
/// still accept. (A linger shorter than that closes them at its start.)
const KEEP_ALIVE_TAIL: Duration = Duration::from_millis(500);

/// How long a client may take nothing of what it is sent. Past it the kernel cuts the connection, and what waits in our
/// buffers for that client is freed: a stream to it has no other end. Linux counts a window of zero as well; elsewhere TCP
/// gives such a client up in its own time.
#[cfg(target_os = "linux")]
const UNREAD: Duration = Duration::from_secs(30);

/// Bounds a request's head, and what is buffered of a response that its client does not take. What other servers take of a
/// head as well (Node: 16 KiB); each of a thousand malicious clients costs the double of it, so hyper's 400 KiB would
/// be too much.
const BUFFER: u16 = 16 * 1024;

/// Where places are short, a connection without a request for so long is closed. A head that was sent with the connection
/// is here by then, over any distance.
pub(crate) const IDLE: Duration = Duration::from_secs(1);

/// What a listener's connections share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) app: Router,
    /// Answers and idle connections wind down with it.
    pub(crate) drain: Option<Drain>,
    pub(crate) stop: CancellationToken,
    /// Fires when a place is wanted: idle connections close.
    pub(crate) crowded: Arc<Notify>,
    #[cfg(feature = "http2")]
    pub(crate) http2: bool,
}

/// A connection with its place, which is free when the socket is closed: an upgraded one outlives HTTP.
pub(crate) struct Placed {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl Placed {
    pub(crate) const fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> Self {
        Self { stream, _place: place }
    }
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// What a connection carried.
struct Activity {
    opened: Instant,
    /// Requests so far.
    requests: AtomicU64,
    /// Milliseconds from `opened` to the latest.
    latest: AtomicU64,
    /// The first has come.
    begun: Notify,
}

impl Activity {
    fn new() -> Arc<Self> {
        let (requests, latest) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { opened: Instant::now(), requests, latest, begun: Notify::new() })
    }

    /// The app, for what a connection of this peer's carries.
    fn service(
        self: &Arc<Self>,
        peer: SocketAddr,
        shared: &Shared,
    ) -> impl hyper::service::Service<
        http::Request<Incoming>,
        Response = Response,
        Error = Infallible,
        Future: Send + 'static,
    > + use<> {
        let (activity, app, drain) = (self.clone(), shared.app.clone(), shared.drain.clone());
        service_fn(move |request| {
            activity.request();
            respond(app.clone(), peer, drain.clone(), request)
        })
    }

    fn request(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.latest.store(now, Ordering::Relaxed);
        if self.requests.fetch_add(1, Ordering::Relaxed) == 0 {
            self.begun.notify_one();
        }
    }

    fn has_no_request_yet(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    /// Waits until places are short and this connection has had no request for a while.
    async fn idle_when_crowded(&self, crowded: &Notify) {
        loop {
            crowded.notified().await;
            let latest = self.opened + Duration::from_millis(self.latest.load(Ordering::Relaxed));
            if latest.elapsed() >= IDLE {
                return;
            }
        }
    }
}

/// One client, from its accept to its end.
pub(crate) async fn serve(socket: Placed, peer: SocketAddr, shared: Shared) {
    set_up(&socket.stream);
    let activity = Activity::new();
    #[cfg(feature = "http2")]
    if shared.http2 {
        let spoken = tokio::select! {
            biased;
            spoken = timeout(HEAD_TIMEOUT, http2::speaks_http2(&socket.stream)) => spoken,
            () = shared.stop.cancelled() => return,
            () = activity.idle_when_crowded(&shared.crowded) => return,
        };
        match spoken {
            Ok(Ok(true)) => {
                let service = activity.service(peer, &shared);
                let serving = http2::builder(BUFFER).serve_connection(TokioIo::new(socket), service);
                return carry(serving, |serving| serving.graceful_shutdown(), activity, shared).await;
            }
            Ok(Ok(false)) => {}
            // It left, or has said nothing for too long.
            Ok(Err(_)) | Err(_) => return,
        }
    }
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER.into())
        .serve_connection(TokioIo::new(socket), activity.service(peer, &shared))
        .with_upgrades();
    carry(serving, |serving| serving.graceful_shutdown(), activity, shared).await;
}

/// Why a connection is to close.
enum Close {
    Ended(hyper::Result<()>),
    /// After what it carries just now.
    Soon,
    MakeRoom,
}

/// Serves until the connection ends, or is told to wind down (`close`) and then ends.
async fn carry<C>(serving: C, close: impl FnOnce(Pin<&mut C>), activity: Arc<Activity>, shared: Shared)
where
    C: Future<Output = hyper::Result<()>>,
{
    let Shared { drain, stop, crowded, .. } = shared;
    tokio::pin!(serving);
    let winding_down = async {
        let Some(drain) = drain else { return std::future::pending().await };
        // hyper would cut a connection that has not carried a request yet; its first one may be on the way.
        activity.begun.notified().await;
        drain.latching(KEEP_ALIVE_TAIL).await;
    };
    // Biased: the connection reads what has arrived before it is told to close, so that a request already here is
    // answered and not reset.
    let why = tokio::select! {
        biased;
        ended = serving.as_mut() => Close::Ended(ended),
        () = winding_down => Close::Soon,
        () = stop.cancelled() => Close::Soon,
        () = activity.idle_when_crowded(&crowded) => Close::MakeRoom,
    };
    let ended = match why {
        Close::Ended(ended) => ended,
        // hyper would wait for the rest of a first head, and it is a slow one.
        Close::MakeRoom if activity.has_no_request_yet() => return,
        Close::Soon | Close::MakeRoom => {
            close(serving.as_mut());
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}

fn set_up(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot set TCP_NODELAY");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(UNREAD)) {
        debug!(%error, "cannot set TCP_USER_TIMEOUT");
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
