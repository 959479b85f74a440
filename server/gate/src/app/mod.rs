//! The app, asked for itself and not for a client: what it has in hand, and that a drain begins.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use graceful_drain::Drain;
use hyper::header::HeaderValue;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use self::question::InFlight;
use self::told::OnDrain;
use crate::metrics::Metrics;

pub(crate) mod ask;
mod proof;
pub mod question;
pub mod told;

/// Loopback connects in microseconds. An app whose backlog is full, or that is stopped, takes none at all.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection to the app.
pub(crate) async fn connect(app: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT, TcpStream::connect(app)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What is asked of the app, and told to it.
pub(crate) struct Attention {
    /// What it has in hand; none: it is not asked.
    pub(crate) question: Option<InFlight>,
    /// The `Authorization` header of that question.
    pub(crate) authorization: Option<HeaderValue>,
    /// How long its zero must hold.
    pub(crate) quiet: Duration,
    /// The call as a drain begins.
    pub(crate) on_drain: Option<OnDrain>,
}

/// Starts what concerns the app itself: the call as a drain begins, and the proof that it has nothing left in hand. Before the first client comes.
pub(crate) fn attend(attention: Attention, app: SocketAddr, drain: &Drain, metrics: &Arc<Metrics>) {
    let Attention { question, authorization, quiet, on_drain } = attention;
    if question.is_none() && on_drain.is_none() {
        return;
    }
    let (tells, told) = watch::channel(on_drain.is_none());
    if let Some(call) = on_drain {
        tokio::spawn(told::tell(call, app, drain.clone(), tells));
    }
    let behind = drain.behind();
    let asker = question.map(|question| ask::Asker::new(question, app, authorization));
    if asker.is_some() {
        behind.unknown("the app behind the gate was not asked yet");
    }
    tokio::spawn(proof::attend(asker, quiet, told, (drain.clone(), behind), metrics.clone()));
}
