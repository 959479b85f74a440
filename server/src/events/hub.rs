//! The sockets: each gets every finished task, as the seed's clients expect, and a word when the pod goes.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use graceful_drain::{Farewell, closing_frame};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::debug;
use uuid::Uuid;

use crate::metrics::Metrics;
use crate::queue::processed;

/// Events a client may fall behind before it is dropped. They are shared between sockets: a slow client costs its
/// place in the ring, not a copy.
const BEHIND: usize = 256;
/// How long one frame may take to leave: a client that reads nothing for so long is gone.
const SEND: Duration = Duration::from_secs(10);
/// Below the 60 s after which common proxies cut a silent connection.
const PING: Duration = Duration::from_secs(25);
/// Two pings unanswered, and the client is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// How long the client may take to answer our close frame.
const CLOSE: Duration = Duration::from_millis(500);

/// Sends to all sockets.
#[derive(Debug, Clone)]
pub struct Hub(Sender<Arc<str>>);

impl Default for Hub {
    fn default() -> Self {
        Self(Sender::new(BEHIND))
    }
}

/// Why a session ended.
enum End {
    /// The client left, or the connection did.
    Gone,
    /// It did not keep up.
    Slow,
    /// The pod goes.
    Farewell,
}

impl Hub {
    /// Tells every socket that a task has ended.
    pub fn task_ended(&self, id: Uuid) {
        // An error means that nobody listens.
        let _ = self.0.send(format!("{id} {}", processed(id)).into());
    }

    /// One client's session, from its first frame to its close.
    pub async fn session(
        &self,
        mut socket: WebSocket,
        client: String,
        greeting: String,
        farewell: Farewell,
        metrics: Arc<Metrics>,
    ) {
        // Subscribed before the greeting: what ends after a client has read it reaches this client.
        let mut events = self.0.subscribe();
        if send(&mut socket, greeting).await.is_err() {
            return;
        }
        let end = converse(&mut socket, &mut events, &client, &farewell).await;
        match end {
            End::Gone => debug!(client, "socket closed"),
            End::Slow => {
                metrics.slow_client();
                debug!(client, "socket dropped: the client does not keep up");
                let reason = "too slow: events were missed".into();
                let close = Message::Close(Some(CloseFrame { code: close_code::POLICY, reason }));
                // It may not even take this; it had its time.
                let _ = timeout(CLOSE, socket.send(close)).await;
            }
            End::Farewell => say_goodbye(&mut socket, &mut events, &client).await,
        }
    }
}

async fn converse(
    socket: &mut WebSocket,
    events: &mut Receiver<Arc<str>>,
    client: &str,
    farewell: &Farewell,
) -> End {
    let mut ping = interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset();
    let mut heard = Instant::now();
    let told = farewell.told();
    tokio::pin!(told);
    loop {
        let sent = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => send(socket, frame(client, event)).await,
                Err(RecvError::Lagged(_)) => return End::Slow,
                Err(RecvError::Closed) => return End::Gone,
            },
            // Text from clients is read and ignored, as by the seed.
            received = socket.recv() => match received {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Gone,
                Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => {
                    heard = Instant::now();
                    Ok(())
                }
            },
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE {
                    return End::Gone;
                }
                send(socket, Message::Ping(Vec::new().into())).await
            }
            () = &mut told => return End::Farewell,
        };
        if let Err(end) = sent {
            return end;
        }
    }
}

/// Results first: whatever ended before the pod became idle is in the ring by now.
async fn say_goodbye(socket: &mut WebSocket, events: &mut Receiver<Arc<str>>, client: &str) {
    while let Ok(event) = events.try_recv() {
        if send(socket, frame(client, event)).await.is_err() {
            return;
        }
    }
    if send(socket, "Server shutting down").await.is_err() || send(socket, closing_frame()).await.is_err() {
        return;
    }
    // Reading on until the client's own close: leaving unread bytes behind would reset the connection, and the reset
    // can overtake the frames just sent.
    let _ = timeout(CLOSE, async { while let Some(Ok(_)) = socket.recv().await {} }).await;
}

fn frame(client: &str, event: impl Display) -> String {
    format!("Client id {client} Message: {event}")
}

async fn send(socket: &mut WebSocket, message: impl Into<Message>) -> Result<(), End> {
    match timeout(SEND, socket.send(message.into())).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(End::Slow),
    }
}
