//! The app, asked for itself and not for a client: what it has in hand, and that a drain begins.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use graceful_drain::Drain;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::config::Run;
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

/// Starts what concerns the app itself: the call as a drain begins, and the proof that it has nothing left in hand. Before the first client comes.
pub(crate) fn attend(flags: &Run, app: SocketAddr, drain: &Drain, metrics: &Arc<Metrics>) {
    if flags.in_flight.is_none() && flags.on_drain.is_none() {
        return;
    }
    let (tells, told) = watch::channel(flags.on_drain.is_none());
    if let Some(call) = flags.on_drain.clone() {
        tokio::spawn(told::tell(call, app, drain.clone(), tells));
    }
    let behind = drain.behind();
    let asker = flags.in_flight.clone().map(|question| {
        let authorization = flags.in_flight_authorization.clone();
        ask::Asker::new(question, app, authorization)
    });
    if asker.is_some() {
        behind.unknown("the app behind the gate was not asked yet");
    }
    let quiet = Duration::from_secs(flags.quiet_seconds);
    tokio::spawn(proof::attend(asker, quiet, told, (drain.clone(), behind), metrics.clone()));
}
