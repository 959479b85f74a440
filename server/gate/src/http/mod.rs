//! Protocol Http: one client's connection, HTTP/1.1 or HTTP/2 with prior knowledge (h2c), served until it ends or the drain winds it down.
//!
//! | file | |
//! |---|---|
//! | `exchange` | one request: admitted, taken to the app, its answer taken back |
//! | `head` | what a proxy has to change in a head, and nothing else |
//! | `body` | bodies both ways, and what ends with them |
//! | `pool` | HTTP/1.1 connections to the app |
//! | `pair` | an HTTP/2 client's own connection to the app |
//! | `refusal` | answers of the gate's own |
//! | `upgrade` | WebSockets and other upgrades |

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use graceful_drain::{Drain, speaks_http2};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::head::Origin;
use self::pair::Pair;
use self::pool::Pool;
use crate::config::{OpenSockets, Run};
use crate::metrics::Metrics;

mod body;
mod exchange;
mod head;
mod pair;
mod pool;
mod refusal;
mod upgrade;

/// Bounds a request's or an answer's head, and what is buffered of a body whose reader is slow: nginx has 32 KiB and 64 KiB.
const BUFFER: usize = 64 * 1024;

/// HTTP/2's flow control: how much of one stream, and of a connection, may be on its way to a slow reader.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The streams of one client's connection. gRPC clients open another connection, or wait.
const STREAMS: u32 = 256;
/// A client that vanished is asked after a minute, and given up if it does not answer: its streams would hold a drain up.
const PING: Duration = Duration::from_secs(60);
const PONG: Duration = Duration::from_secs(20);

/// Idle keep-alive connections are closed this long before the latch, and HTTP/2's are told GOAWAY: their clients open a new one, to another pod, instead of
/// meeting a 503 here later. Half a second lets a request that crosses it be sent anew while the gate still accepts.
const KEEP_ALIVE_TAIL: Duration = Duration::from_millis(500);

/// What all connections share.
pub(crate) struct Gate {
    app: SocketAddr,
    pool: Arc<Pool>,
    drain: Drain,
    metrics: Arc<Metrics>,
    open_sockets: OpenSockets,
    forwarded: crate::config::Forwarded,
    idle: Duration,
    body_idle: Option<Duration>,
    app_answer: Option<Duration>,
}

impl Gate {
    pub(crate) fn new(flags: &Run, app: SocketAddr, drain: Drain, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            app,
            pool: Pool::new(app),
            drain,
            metrics,
            open_sockets: flags.open_sockets,
            forwarded: flags.forwarded.unwrap_or_default(),
            idle: flags.idle(),
            body_idle: flags.body_idle(),
            app_answer: flags.app_answer(),
        })
    }
}

/// A client's connection, as its requests see it.
pub(crate) struct Client {
    gate: Arc<Gate>,
    origin: Origin,
    pair: Pair,
    /// Told when the connection has carried a request.
    used: Notify,
}

/// One client, from its accept to its end.
pub(crate) async fn client(
    gate: Arc<Gate>,
    stream: TcpStream,
    peer: SocketAddr,
    drain: &Drain,
    stop: CancellationToken,
) {
    let looked = tokio::select! {
        looked = timeout(gate.idle, speaks_http2(&stream)) => looked,
        () = stop.cancelled() => return,
    };
    let Ok(Ok(http2)) = looked else { return };
    let (idle, app) = (gate.idle, gate.app);
    let client =
        Arc::new(Client { gate, origin: Origin::new(peer.ip()), pair: Pair::new(app), used: Notify::new() });
    let service = {
        let client = client.clone();
        service_fn(move |request| {
            client.used.notify_one();
            exchange::answer(client.clone(), request)
        })
    };
    let wind_down = async {
        tokio::select! {
            () = stop.cancelled() => {}
            // hyper would cut a connection that has not carried a request yet; its first one may be on the way.
            () = async { client.used.notified().await; drain.latching(KEEP_ALIVE_TAIL).await } => {}
        }
    };
    let ended = if http2 {
        let serving = http2_builder().serve_connection(TokioIo::new(stream), service);
        served(serving, |serving| serving.graceful_shutdown(), wind_down).await
    } else {
        let serving = http1_builder(idle).serve_connection(TokioIo::new(stream), service).with_upgrades();
        served(serving, |serving| serving.graceful_shutdown(), wind_down).await
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "connection ended");
    }
}

fn http1_builder(idle: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The app's own Date, or none; and names as the app and its clients write them.
    builder.auto_date_header(false).preserve_header_case(true);
    builder.timer(TokioTimer::new()).header_read_timeout(idle);
    builder.max_buf_size(BUFFER).max_header_size(BUFFER);
    builder
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.auto_date_header(false).timer(TokioTimer::new());
    builder.keep_alive_interval(PING).keep_alive_timeout(PONG);
    builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    builder.max_concurrent_streams(STREAMS).max_send_buf_size(BUFFER).max_header_list_size(BUFFER as u32);
    builder
}

/// Serves until the connection ends, or is told to wind down and then ends.
///
/// Biased: the connection reads what has arrived before it is told to close, so that a request already here is answered and not reset.
async fn served<C>(
    serving: C,
    close: impl FnOnce(Pin<&mut C>),
    wind_down: impl Future<Output = ()>,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        biased;
        ended = serving.as_mut() => return ended,
        () = wind_down => {}
    }
    close(serving.as_mut());
    serving.await
}
