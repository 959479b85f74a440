//! Upgraded WebSockets, tracked. axum's own graceful shutdown forgets a connection once it is upgraded: the process
//! would exit under its open sockets without a word to them.

use std::future::{Future, ready};

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;

use crate::drain::Drain;
use crate::guard::Farewell;

/// RFC 6455's registry: the server restarts; the client should come back, after a random 5–30 s or as it likes.
pub const SERVICE_RESTART: u16 = 1012;

impl Drain {
    /// Upgrades, and counts the connection from here until `session` ends, fails, panics, or never starts.
    /// The session gets its [`Farewell`]: once told, it sends its last frame and closes with [`SERVICE_RESTART`].
    pub fn on_upgrade<F, Fut>(&self, upgrade: WebSocketUpgrade, session: F) -> Response
    where
        F: FnOnce(WebSocket, Farewell) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let connection = self.connection();
        // A task of its own, made when the socket is there: an idle socket then costs what its session needs, and not
        // the steps of the upgrade before it. Boxed, since a future that awaits another it was given has room for it
        // twice.
        upgrade.on_upgrade(move |socket| {
            let session = Box::pin(session(socket, connection.farewell()));
            tokio::spawn(async move {
                session.await;
                drop(connection);
            });
            ready(())
        })
    }
}

/// The close frame of a pod that goes.
#[must_use]
pub fn closing_frame() -> Message {
    Message::Close(Some(CloseFrame { code: SERVICE_RESTART, reason: "service restart".into() }))
}
