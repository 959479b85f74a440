//! `GET /v1/events`: the same events as Server-Sent Events, for those who can't use sockets.
//!
//! A stream is a read: it is open while the pod drains, it counts as a connection and not as a request in flight, and
//! ends with the pod. A client that does not keep up is ended, and comes back with `Last-Event-ID` by itself.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use graceful_drain::ConnectionGuard;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::ask::{self, Ask, Peer};
use super::feed::{Feed, Next, Start, Wish};
use super::frame::{self, Range, sse};
use super::hub::{Hub, PodState};
use super::limits::Place;

/// Below the 30 s after which some proxies cut a silent answer.
const COMMENT: Duration = Duration::from_secs(15);

/// The route's handler.
pub(crate) async fn events(
    State(hub): State<Hub>,
    Query(query): Query<Vec<(String, String)>>,
    peer: Peer,
    headers: HeaderMap,
) -> Response {
    let ask = match Ask::of_stream(&query, headers.get("last-event-id")) {
        Ok(ask) => ask,
        Err(why) => return ask::unusable(why),
    };
    let origin = match ask::admit(&hub, &headers) {
        Ok(origin) => origin,
        Err(refusal) => return *refusal,
    };
    let Some(log) = hub.log() else { return ask::closed() };
    let start = match Start::find(&*log, ask.after, ask.last, hub.published()).await {
        Ok(start) => start,
        Err(error) => {
            return ask::away(error);
        }
    };
    let client: Option<Arc<str>> = ask.client_id.map(Into::into);
    let place = match hub.places().take(client.clone(), ask::address(peer)) {
        Ok(place) => place,
        Err(crowded) => return ask::crowded(&hub, crowded),
    };
    let listener = Listener::new(hub, Wish::Json { own: client, hints: !ask.no_hints }, start, place);
    let body = stream::unfold(listener, async |mut listener| {
        let bytes = listener.next().await?;
        Some((Ok::<_, Infallible>(bytes), listener))
    });
    let mut response = (
        [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-store"),
            // Some proxies collect an answer before they pass it on.
            (header::HeaderName::from_static("x-accel-buffering"), "no"),
        ],
        Body::from_stream(body),
    )
        .into_response();
    if let Some(origin) = origin {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("origin"));
    }
    response
}

struct Listener {
    feed: Feed,
    pod_state: watch::Receiver<PodState>,
    streams: u32,
    first: Option<Bytes>,
    leave: Option<Instant>,
    over: bool,
    connection: ConnectionGuard,
    _place: Place,
}

impl Listener {
    fn new(hub: Hub, wish: Wish, start: Start, place: Place) -> Self {
        let connection = hub.drain().connection();
        let pod_state = hub.pod_state();
        let streams = pod_state.borrow().streams;
        let (feed, hello) = Feed::new(hub, wish, start);
        let first = Some(sse(Some(feed.place()), &hello));
        let mut listener =
            Self { feed, pod_state, streams, first, leave: None, over: false, connection, _place: place };
        listener.pod_changed();
        listener
    }

    /// The next piece of the body; None at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let comment = Instant::now() + COMMENT;
        while !self.over {
            let alarm = sleep_until(self.leave.map_or(comment, |leave| leave.min(comment)));
            tokio::select! {
                next = self.feed.next() => match next {
                    Next::Frame(frame) => return Some(frame.sse(self.feed.stream())),
                    Next::Lagged => {
                        self.feed.hub().metrics().slow_client();
                        return Some(self.end("too slow: events were missed"));
                    }
                    Next::Behind if self.leave.is_some_and(|leave| leave <= Instant::now()) => return Some(self.farewell()),
                    Next::Behind => {
                        let page = self.page().await;
                        if !page.is_empty() {
                            return Some(page);
                        }
                    }
                },
                changed = self.pod_state.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                    if let Some(told) = self.pod_changed() {
                        return Some(told);
                    }
                }
                () = alarm => {
                    return Some(match self.leave {
                        Some(leave) if leave <= Instant::now() => self.farewell(),
                        _ => ":\n\n".into(),
                    });
                }
            }
        }
        None
    }

    /// What the client is told of it, or when it is to leave.
    fn pod_changed(&mut self) -> Option<Bytes> {
        let PodState { state, accepting, closing, streams } = *self.pod_state.borrow_and_update();
        if streams != self.streams {
            return Some(self.end("the queue was replaced"));
        }
        if closing {
            self.leave = self.leave.or(Some(Instant::now() + self.connection.farewell().delay()));
            return None;
        }
        Some(sse(None, &frame::drain(state, accepting)))
    }

    /// Some of what was missed.
    async fn page(&mut self) -> Bytes {
        let missed = match self.feed.catch_up().await {
            Ok(missed) => missed,
            Err(error) => {
                debug!(%error, "missed events can't be read");
                return self.end("missed events can't be read now");
            }
        };
        let mut page = Vec::new();
        if let Some((from, to)) = missed.expired {
            let (from, to) = (self.feed.token(from), self.feed.token(to));
            page.extend_from_slice(&sse(Some(to), &frame::missed(Range { from, to })));
        }
        for frame in missed.frames {
            page.extend_from_slice(&frame.sse(self.feed.stream()));
        }
        page.into()
    }

    fn end(&mut self, why: &str) -> Bytes {
        self.over = true;
        format!(": {why}\n\n").into()
    }

    /// Results first, then when to come back.
    fn farewell(&mut self) -> Bytes {
        self.over = true;
        let mut last = Vec::new();
        while let Some(frame) = self.feed.ready() {
            last.extend_from_slice(&frame.sse(self.feed.stream()));
        }
        let mut words = String::new();
        let pause = frame::pause();
        // Writing to a String cannot fail.
        let _ = write!(words, "retry: {pause}\ndata: {}\n\n", &*frame::farewell_in(pause));
        last.extend_from_slice(words.as_bytes());
        last.into()
    }
}
