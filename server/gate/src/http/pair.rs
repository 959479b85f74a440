//! HTTP/2 to the app: each client's connection has its own beside it, so that clients share neither a window nor the app's limit of streams, and what the app
//! sees is what the client sends.

use std::net::SocketAddr;

use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Mutex;
use tracing::debug;

use super::body::Outgoing;
use super::pool::Failure;
use super::{BUFFER, CONNECTION_WINDOW, STREAM_WINDOW};
use crate::app::connect;

type Sender = SendRequest<Outgoing>;

/// The connection beside a client's own, from its first HTTP/2 request on.
pub(super) struct Pair {
    app: SocketAddr,
    sender: Mutex<Option<Sender>>,
}

impl Pair {
    pub(super) fn new(app: SocketAddr) -> Self {
        Self { app, sender: Mutex::new(None) }
    }

    /// Sends a request. What the app did not take, because it was closing (GOAWAY), goes to a new connection; once, for an app that closes each is no
    /// HTTP/2 server.
    pub(super) async fn send(&self, request: Request<Outgoing>) -> Result<Response<Incoming>, Failure> {
        let request = match self.sender().await?.try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(mut error) => match error.take_message() {
                Some(unsent) => unsent,
                None => return Err(Failure::Died(error.into_error())),
            },
        };
        self.sender().await?.send_request(request).await.map_err(Failure::Died)
    }

    async fn sender(&self) -> Result<Sender, Failure> {
        let mut kept = self.sender.lock().await;
        if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let stream = connect(self.app).await.map_err(Failure::NotThere)?;
        let mut builder = Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).max_send_buf_size(BUFFER).max_header_list_size(BUFFER as u32);
        builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(Failure::Died)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "an HTTP/2 connection to the app ended");
            }
        });
        *kept = Some(sender.clone());
        Ok(sender)
    }
}
