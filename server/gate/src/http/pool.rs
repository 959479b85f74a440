//! HTTP/1.1 connections to the app, kept for a moment between requests.
//!
//! The race that every such pool has: the app closes an idle connection while a request is on its way to it. What was not written is sent again on a new one.
//! What was written may have been acted upon and is never sent twice, so connections are kept for a second only, which no server closes within.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tracing::debug;

use super::BUFFER;
use super::body::{Outgoing, Progress};
use crate::app::connect;

/// Servers keep idle connections for two seconds (gunicorn), five (uvicorn, Node) or longer. A new one on loopback costs some 50 µs.
const KEPT: Duration = Duration::from_secs(1);

type Sender = SendRequest<Outgoing>;

pub(super) struct Pool {
    app: SocketAddr,
    idle: Mutex<Vec<(Sender, Instant)>>,
}

/// Why the app has given no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("cannot connect to the app")]
    NotThere(#[source] std::io::Error),
    #[error("no answer from the app")]
    Died(#[source] hyper::Error),
}

/// A connection of the app's, in use by one exchange.
pub(super) struct Lease {
    sender: Sender,
    pool: Weak<Pool>,
    progress: Arc<Progress>,
}

impl Pool {
    pub(super) fn new(app: SocketAddr) -> Arc<Self> {
        let pool = Arc::new(Self { app, idle: Mutex::default() });
        let kept = Arc::downgrade(&pool);
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(KEPT);
            loop {
                tick.tick().await;
                let Some(pool) = kept.upgrade() else { return };
                pool.idle.lock().retain(|(sender, since)| !sender.is_closed() && since.elapsed() < KEPT);
            }
        });
        pool
    }

    /// Sends a request, on a connection that is there or on a new one.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<Outgoing>,
        progress: &Arc<Progress>,
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        loop {
            let (mut sender, fresh) = match self.take() {
                Some(sender) => (sender, false),
                None => (self.connect().await?, true),
            };
            // One that was given back a moment ago may have its last bytes still to do.
            if !sender.is_ready() && sender.ready().await.is_err() && !fresh {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let lease = Lease { sender, pool: Arc::downgrade(self), progress: progress.clone() };
                    return Ok((response, lease));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    Some(_) | None => return Err(Failure::Died(error.into_error())),
                },
            }
        }
    }

    /// The one that was used last: the others grow old, and the app may have fewer.
    fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock();
        while let Some((sender, since)) = idle.pop() {
            if !sender.is_closed() && since.elapsed() < KEPT {
                return Some(sender);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        let stream = connect(self.app).await.map_err(Failure::NotThere)?;
        let mut builder = Builder::new();
        builder.preserve_header_case(true).max_buf_size(BUFFER).max_header_size(BUFFER);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(Failure::Died)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%error, "a connection to the app ended");
            }
        });
        Ok(sender)
    }
}

impl Lease {
    /// The answer was read to its end. If the request was not sent to its end, the app answered early, and the connection is of no more use.
    pub(super) fn give_back(self) {
        if !self.progress.sent() || self.sender.is_closed() {
            return;
        }
        if let Some(pool) = self.pool.upgrade() {
            pool.idle.lock().push((self.sender, Instant::now()));
        }
    }
}
