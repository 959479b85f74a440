//! `/ws/{client_id}`: one client's session, from its first frame to its close.
//!
//! # Close codes
//! - 1012: the pod goes, or its queue was replaced by another; come back, after a random time (`reconnect_in_ms` in the last JSON frame).
//! - 1008: the client did not keep up, or did not answer pings. In JSON it may come back with its last `id`.
//! - 1013: the queue could not be read for what the client missed; come back later with the same `id`.
//! - 1009, 1002, 1007: the client sent something too long or malformed.
//!
//! An idle session's memory is its future and some buffers: what is rare is boxed, and there is one timer for all that
//! a session may wait for.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseCode, CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use graceful_drain::{Farewell, SERVICE_RESTART, closing_frame};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::ask::{self, Ask, Peer};
use super::feed::{Feed, Next, Start, Wish};
use super::frame::{self, Frame, Range};
use super::hub::{Hub, PodState};
use super::limits::Place;
use crate::tokens::door::SUBPROTOCOL;

/// How long one frame may take to leave: a client that reads nothing for so long is gone.
const SEND: Duration = Duration::from_secs(10);
/// Below the 60 s after which common proxies cut a silent connection.
const PING: Duration = Duration::from_secs(25);
/// Two pings unanswered, and the client is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// How long the client may take to answer our close frame.
const CLOSE: Duration = Duration::from_millis(500);
/// Clients send nothing that is used; a small bound keeps what they send out of memory.
const LONGEST_MESSAGE: usize = 4 * 1024;
/// Room for any control frame. The default, 128 KiB for each socket, is for those who are sent a lot.
const READ_BUFFER: usize = 256;

/// Why a session ended.
enum End {
    /// The client left, or the connection did.
    Gone,
    /// The client did not keep up.
    Slow,
    /// The client does not answer.
    Silent,
    /// What it missed can't be read.
    Away,
    /// The queue was replaced by another.
    Replaced,
    /// The pod goes.
    Farewell,
}

/// The route's handler: what can't be is refused before the upgrade.
pub(crate) async fn watch(
    State(hub): State<Hub>,
    Path(client): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    peer: Peer,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let asked = ask::client_id(&client).and_then(|_| Ask::of_socket(&query));
    let ask = match asked {
        Ok(ask) => ask,
        Err(why) => return ask::unusable(why),
    };
    if let Err(refusal) = ask::admit(&hub, &headers) {
        return *refusal;
    }
    let client: Arc<str> = client.as_str().into();
    let start = match hub.log() {
        _ if !ask.json => Start::PLAIN,
        None => return ask::closed(),
        Some(log) => match Start::find(&*log, ask.after, ask.last, hub.published()).await {
            Ok(start) => start,
            Err(error) => {
                return ask::away(error);
            }
        },
    };
    let place = match hub.places().take(Some(client.clone()), ask::address(peer)) {
        Ok(place) => place,
        Err(crowded) => return ask::crowded(&hub, crowded),
    };
    let wish = if ask.json {
        Wish::Json { own: ask.own.then(|| client.clone()), hints: !ask.no_hints }
    } else {
        Wish::Plain
    };
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(LONGEST_MESSAGE)
        .max_frame_size(LONGEST_MESSAGE)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0);
    let drain = hub.drain().clone();
    drain.on_upgrade(upgrade, move |socket, farewell| {
        // Before the first frame: what ends after a client has read it reaches this client.
        let pod_state = hub.pod_state();
        let streams = pod_state.borrow().streams;
        let (feed, first) = Feed::new(hub, wish, start);
        Session { socket, feed, client, pod_state, streams, farewell, _place: place }.run(first)
    })
}

struct Session {
    socket: WebSocket,
    feed: Feed,
    client: Arc<str>,
    pod_state: watch::Receiver<PodState>,
    streams: u32,
    farewell: Farewell,
    _place: Place,
}

impl Session {
    /// A block, and by reference what it calls: an async function would have room for its arguments twice.
    #[allow(clippy::manual_async_fn, reason = "see above")]
    fn run(mut self, first: Utf8Bytes) -> impl Future<Output = ()> {
        async move {
            let Err(end) = self.converse(first).await;
            Box::pin(self.end(end)).await;
        }
    }

    async fn converse(&mut self, first: Utf8Bytes) -> Result<std::convert::Infallible, End> {
        self.send(Message::Text(first)).await?;
        let mut heard = Instant::now();
        let mut ping = heard + PING;
        let mut leave = self.leave();
        let alarm = sleep_until(leave.map_or(ping, |leave| leave.min(ping)));
        tokio::pin!(alarm);
        loop {
            let frame = tokio::select! {
                next = self.feed.next() => match next {
                    Next::Frame(frame) => Some(self.message(&frame)),
                    Next::Lagged => return Err(End::Slow),
                    Next::Behind => {
                        Box::pin(self.catch_up()).await?;
                        // Nothing was read meanwhile.
                        heard = Instant::now();
                        None
                    }
                },
                // Text from clients is read and ignored, as by the seed.
                received = self.socket.recv() => match received {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Gone),
                    Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => {
                        heard = Instant::now();
                        None
                    }
                },
                changed = self.pod_state.changed() => {
                    if changed.is_err() {
                        return Err(End::Gone);
                    }
                    if self.feed.is_json() && self.pod_state.borrow().streams != self.streams {
                        return Err(End::Replaced);
                    }
                    leave = leave.or(self.leave());
                    self.told()
                }
                () = &mut alarm => {
                    let now = Instant::now();
                    if leave.is_some_and(|leave| leave <= now) {
                        return Err(End::Farewell);
                    }
                    if now.duration_since(heard) > SILENCE {
                        return Err(End::Silent);
                    }
                    ping = now + PING;
                    Some(Message::Ping(Vec::new().into()))
                }
            };
            alarm.as_mut().reset(leave.map_or(ping, |leave| leave.min(ping)));
            if let Some(frame) = frame {
                self.send(frame).await?;
            }
        }
    }

    /// When to say goodbye, if the pod goes.
    fn leave(&mut self) -> Option<Instant> {
        self.pod_state.borrow_and_update().closing.then(|| Instant::now() + self.farewell.delay())
    }

    /// Where the pod's drain is, for those who understand.
    fn told(&mut self) -> Option<Message> {
        let PodState { state, accepting, closing, streams: _ } = *self.pod_state.borrow();
        (self.feed.is_json() && !closing).then(|| Message::Text(frame::drain(state, accepting)))
    }

    fn message(&self, frame: &Frame) -> Message {
        match &frame.plain {
            Some(plain) if !self.feed.is_json() => {
                format!("Client id {} Message: {plain}", self.client).into()
            }
            _ => Message::Text(frame.json.clone()),
        }
    }

    /// Sends what was missed, page by page, for as long as the pod stays.
    async fn catch_up(&mut self) -> Result<(), End> {
        let mut leave = None;
        while self.feed.is_behind() {
            let now = Instant::now();
            let closing = self.pod_state.borrow().closing;
            leave = leave.or(closing.then(|| now + self.farewell.delay()));
            if leave.is_some_and(|leave| leave <= now) {
                break;
            }
            let missed = self.feed.catch_up().await.map_err(|error| {
                debug!(%error, "missed events can't be read");
                End::Away
            })?;
            if let Some((from, to)) = missed.expired {
                let range = Range { from: self.feed.token(from), to: self.feed.token(to) };
                self.send(Message::Text(frame::missed(range))).await?;
            }
            for frame in missed.frames {
                self.send(self.message(&frame)).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        // Boxed, since a session that idles should not have the room for it: allocating costs next to nothing beside the
        // system call.
        match Box::pin(timeout(SEND, self.socket.send(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::Slow),
        }
    }

    async fn end(&mut self, end: End) {
        let client = &*self.client.clone();
        match end {
            End::Gone => debug!(client, "socket closed"),
            End::Slow => {
                self.feed.hub().metrics().slow_client();
                debug!(client, "socket dropped: the client does not keep up");
                self.close(close_code::POLICY, "too slow: events were missed").await;
            }
            End::Silent => {
                debug!(client, "socket dropped: no answer to pings");
                self.close(close_code::POLICY, "silent: no answer to pings").await;
            }
            End::Away => self.close(close_code::AGAIN, "missed events can't be read now").await,
            End::Replaced => self.close(SERVICE_RESTART, "the queue was replaced").await,
            End::Farewell => self.say_goodbye().await,
        }
    }

    async fn close(&mut self, code: CloseCode, reason: &'static str) {
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        // It may not even take this; it had its time.
        let _ = timeout(CLOSE, self.socket.send(close)).await;
    }

    /// Results first: whatever ended before the pod became idle is in the ring by now.
    async fn say_goodbye(&mut self) {
        while let Some(frame) = self.feed.ready() {
            let message = self.message(&frame);
            if self.send(message).await.is_err() {
                return;
            }
        }
        let last = if self.feed.is_json() { frame::farewell() } else { "Server shutting down".into() };
        if self.send(Message::Text(last)).await.is_err() || self.send(closing_frame()).await.is_err() {
            return;
        }
        // Reading on until the client's own close: leaving unread bytes behind would reset the connection, and the
        // reset can overtake the frames just sent.
        let _ = timeout(CLOSE, async { while let Some(Ok(_)) = self.socket.recv().await {} }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function of two arguments returns.
    fn size<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_session_is_small() {
        let sizes = (size(Session::run), size_of::<Session>(), size_of::<WebSocket>());
        assert!(sizes.0 <= 1280, "session, its parts, its socket: {sizes:?} bytes");
    }
}
