//! One listener and its connections: bounded, so that those who connect and say nothing cannot shut others out.
//!
//! # Flow
//! Accept → take a place → serve → the place is free when the socket is closed, upgraded or not; one that speaks HTTP has a
//! second place, which is free when it is upgraded. Where no place is free,
//! connections that have had no request for a second are closed, and the newcomer waits for one of them; where none comes
//! free, the newcomer is closed.

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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::descriptors::Reserve;
use crate::drain::Drain;
use crate::gate::close_if_winding_down;
use crate::serve::Bounds;

/// How long a connection may take to send a request's head, idle time included: longer than the 60 s that common
/// proxies and clients keep an idle connection, so that it is they who close it and never a request that meets a
/// closing server; short enough to be rid of those that dawdle on purpose.
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
/// head as well (Node: 16 KiB); each of a thousand clients that mean harm costs the double of it, so hyper's 400 KiB would
/// be too much.
const BUFFER: usize = 16 * 1024;

/// How long last responses may take from our buffer to the client once nothing is in flight.
const FLUSH: Duration = Duration::from_secs(2);

/// Where places are short, a connection without a request for so long is closed. A head that was sent with the connection
/// is here by then, over any distance.
const IDLE: Duration = Duration::from_secs(1);

/// How long a newcomer waits for a place. Longer than [`IDLE`], so that one that has just been opened can make room.
const ROOM: Duration = Duration::from_secs(2);

/// Trouble is over when there was none for so long.
const OVER: Duration = Duration::from_secs(10);

/// Between attempts to accept while there are no descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// One listener and its connections.
pub(crate) struct Listener {
    stop: CancellationToken,
    connections: TaskTracker,
}

/// What a listener's connections share.
#[derive(Clone)]
struct Shared {
    app: Router,
    /// Answers and idle connections wind down with it.
    drain: Option<Drain>,
    stop: CancellationToken,
    /// Fires when a place is wanted: idle connections close.
    crowded: Arc<Notify>,
}

impl Listener {
    /// Accepts connections within these bounds, until closed. With a reserve, also when the process has no descriptors left.
    pub(crate) fn open(
        listener: TcpListener,
        app: Router,
        drain: Option<Drain>,
        bounds: Bounds,
        reserve: Option<Reserve>,
    ) -> Self {
        let opened = Self { stop: CancellationToken::new(), connections: TaskTracker::new() };
        let (stop, connections) = (opened.stop.clone(), opened.connections.clone());
        let shared = Shared { app, drain, stop: stop.clone(), crowded: Arc::new(Notify::new()) };
        let door = Door {
            listener,
            all: Arc::new(Semaphore::new(bounds.all.min(Semaphore::MAX_PERMITS))),
            http: Arc::new(Semaphore::new(bounds.http.min(Semaphore::MAX_PERMITS))),
            bounds,
            reserve,
            crowded: shared.crowded.clone(),
            trouble: None,
        };
        tokio::spawn(async move {
            tokio::select! {
                () = door.keep(|socket, place, peer| {
                    let serving = connection(socket, peer, shared.clone());
                    connections.spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }) => {}
                () = stop.cancelled() => {}
            }
        });
        opened
    }

    /// Accepts no more, lets answers under way finish, closes the rest.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.connections.close();
        if timeout(FLUSH, self.connections.wait()).await.is_err() {
            warn!(connections = self.connections.len(), "cut connections that did not take their answer");
        }
    }
}

/// Lets connections in.
struct Door {
    listener: TcpListener,
    all: Arc<Semaphore>,
    http: Arc<Semaphore>,
    bounds: Bounds,
    reserve: Option<Reserve>,
    crowded: Arc<Notify>,
    /// When a connection last could not be accepted at once, until that is over; it was logged then.
    trouble: Option<Instant>,
}

impl Door {
    /// `let_in` is given the place as a connection that speaks HTTP, which an upgraded one gives back.
    async fn keep(mut self, let_in: impl Fn(Placed, OwnedSemaphorePermit, SocketAddr)) {
        // What was given up for a connection is not taken back before it is accepted.
        let mut fill = true;
        loop {
            if let (true, Some(reserve)) = (fill, &mut self.reserve) {
                reserve.fill();
            }
            let accepted = self.listener.accept().await;
            fill = accepted.is_ok();
            match accepted {
                Ok((stream, peer)) => match self.place().await {
                    Some((place, http)) => let_in(Placed { stream, _place: place }, http, peer),
                    None => drop(stream),
                },
                Err(error) => self.cannot_accept(&error).await,
            }
        }
    }

    async fn place(&mut self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        if let (Ok(place), Ok(http)) =
            (self.all.clone().try_acquire_owned(), self.http.clone().try_acquire_owned())
        {
            // Not with each place that comes free while they are short: the log would have a line for each.
            if self.trouble.is_some_and(|latest| latest.elapsed() > OVER) {
                info!("connections are accepted as usual again");
                self.trouble = None;
            }
            return Some((place, http));
        }
        self.say("as many connections are open as may be; idle ones are closed for newcomers", None);
        let making_room = async {
            loop {
                self.crowded.notify_waiters();
                let both = async {
                    let place = self.all.clone().acquire_owned().await.ok()?;
                    Some((place, self.http.clone().acquire_owned().await.ok()?))
                };
                if let Ok(places) = timeout(ACCEPT_AGAIN, both).await {
                    return places;
                }
            }
        };
        timeout(ROOM, making_room).await.ok().flatten()
    }

    async fn cannot_accept(&mut self, error: &io::Error) {
        let none_left = matches!(error.raw_os_error(), Some(EMFILE | ENFILE));
        if none_left && self.reserve.as_mut().is_some_and(Reserve::give_up) {
            return;
        }
        self.say("cannot accept connections; retrying", Some(error));
        if none_left {
            self.crowded.notify_waiters();
        }
        sleep(ACCEPT_AGAIN).await;
    }

    /// Once, and again when it was over in between.
    fn say(&mut self, trouble: &'static str, error: Option<&io::Error>) {
        if self.trouble.replace(Instant::now()).is_some() {
            return;
        }
        let error = error.map(tracing::field::display);
        warn!(
            error,
            most = self.bounds.all,
            http = self.bounds.http,
            port = self.listener.local_addr().ok().map(|at| at.port()),
            "{trouble}"
        );
    }
}

const EMFILE: i32 = nix::errno::Errno::EMFILE as i32;
const ENFILE: i32 = nix::errno::Errno::ENFILE as i32;

/// A connection with its place, which is free when the socket is closed: an upgraded one outlives HTTP.
struct Placed {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
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
struct Use {
    opened: Instant,
    /// Requests so far.
    requests: AtomicU64,
    /// Milliseconds from `opened` to the latest.
    latest: AtomicU64,
    /// The first has come.
    begun: Notify,
}

impl Use {
    fn new() -> Arc<Self> {
        let (requests, latest) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { opened: Instant::now(), requests, latest, begun: Notify::new() })
    }

    fn request(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.latest.store(now, Ordering::Relaxed);
        if self.requests.fetch_add(1, Ordering::Relaxed) == 0 {
            self.begun.notify_one();
        }
    }

    fn never(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    /// Waits until places are short and this connection has had no request for a while.
    async fn in_the_way(&self, crowded: &Notify) {
        loop {
            crowded.notified().await;
            let latest = self.opened + Duration::from_millis(self.latest.load(Ordering::Relaxed));
            if latest.elapsed() >= IDLE {
                return;
            }
        }
    }
}

/// Why a connection is to close.
enum Close {
    Ended(hyper::Result<()>),
    /// After what it carries just now.
    Soon,
    MakeRoom,
}

async fn connection(socket: Placed, peer: SocketAddr, shared: Shared) {
    let Shared { app, drain, stop, crowded } = shared;
    set_up(&socket.stream);
    let used = Use::new();
    let service = {
        let (used, drain) = (used.clone(), drain.clone());
        service_fn(move |request| {
            used.request();
            respond(app.clone(), peer, drain.clone(), request)
        })
    };
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::pin!(serving);
    let winding_down = async {
        let Some(drain) = drain else { return std::future::pending().await };
        // hyper would cut a connection that has not carried a request yet; its first one may be on the way.
        used.begun.notified().await;
        drain.latching(KEEP_ALIVE_TAIL).await;
    };
    // Biased: the connection reads what has arrived before it is told to close, so that a request already here is
    // answered and not reset.
    let close = tokio::select! {
        biased;
        ended = serving.as_mut() => Close::Ended(ended),
        () = winding_down => Close::Soon,
        () = stop.cancelled() => Close::Soon,
        () = used.in_the_way(&crowded) => Close::MakeRoom,
    };
    let ended = match close {
        Close::Ended(ended) => ended,
        // hyper would wait for the rest of a first head, and it is a slow one.
        Close::MakeRoom if used.never() => return,
        Close::Soon | Close::MakeRoom => {
            serving.as_mut().graceful_shutdown();
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
