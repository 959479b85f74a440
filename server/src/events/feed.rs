//! [`Feed`]: what one client is to be told, in order. What it missed comes from the queue, page by page; then it takes
//! its place in the ring.
//!
//! There is no gap and no duplicate where the two meet: the place in the ring is taken before the page is read, so that
//! what the page does not have comes by the ring; and by its number it is known what came already.

use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use graceful_store::{Events, StoreError, TaskStore, Unavailable};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::frame::{self, Frame, Hello, Range};
use super::hub::Hub;
use super::token::Token;

/// Events that are read from the queue at once for a client that catches up.
pub(crate) const PAGE: usize = 256;

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// What the first clients get: each success, without a number.
    Plain,
    /// Numbered ends, in JSON.
    Json {
        /// Only the tasks of this client.
        own: Option<Arc<str>>,
        /// What happens before the end, too.
        hints: bool,
    },
}

impl Wish {
    fn hints(&self) -> bool {
        matches!(self, Self::Json { hints: true, .. })
    }

    fn wants(&self, frame: &Frame) -> bool {
        match self {
            Self::Plain => frame.plain.is_some(),
            Self::Json { own, hints } => {
                let own = own.as_ref().is_none_or(|own| frame.client_id.as_deref() == Some(own));
                own && (*hints || frame.number.is_some())
            }
        }
    }
}

/// Where a client begins, found out before its connection is upgraded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    /// Of this stream; of none for the first clients, who know no numbers.
    stream: Option<Arc<str>>,
    from: From,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// From now on. With a reason, if it wanted to resume.
    Head(Option<&'static str>),
    /// After this number; `oldest` is what is still kept.
    After { number: u64, oldest: u64 },
    /// After this number, which nobody has seen: with the latest, to look back.
    Back(u64),
}

const OTHER: From = From::Head(Some(
    "this is another queue than the one you come from, and its events have numbers of their own",
));
const AHEAD: From = From::Head(Some("this queue has not had so many events; it may be an older copy"));

impl Start {
    /// For the first clients.
    pub(crate) const PLAIN: Self = Self { stream: None, from: From::Head(None) };

    /// Where who wants to go on `after` begins; without that, with so many of the `last`, of which `head` is the newest.
    pub(crate) async fn find(
        log: &dyn TaskStore,
        after: Option<Token<'_>>,
        last: u64,
        head: u64,
    ) -> Result<Self, StoreError> {
        let start = |from| Ok(Self { stream: Some(log.stream().into()), from });
        let Some(Token { stream, number }) = after else {
            if last == 0 {
                return start(From::Head(None));
            }
            let Events { oldest, .. } = log.events(head.saturating_sub(last), 1).await?;
            return start(From::Back(head.saturating_sub(last).max(oldest.saturating_sub(1)).min(head)));
        };
        if stream != log.stream() {
            return start(OTHER);
        }
        // The event itself is asked for too: who has seen a number that was never given comes from another past of
        // this queue, such as one restored from a backup.
        let Events { events, oldest } = log.events(number.saturating_sub(1), 1).await?;
        let known =
            number == 0 || oldest > number || events.first().is_some_and(|event| event.number == number);
        start(if known { From::After { number, oldest } } else { AHEAD })
    }
}

/// What one client is to be told.
#[derive(Debug)]
pub(crate) struct Feed {
    hub: Hub,
    ring: Receiver<Arc<Frame>>,
    stream: Option<Arc<str>>,
    wish: Wish,
    /// The number of the last event that was passed on, or passed over.
    last: u64,
    /// There may be events after `last` that are only in the queue.
    behind: bool,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Next {
    /// A frame to pass on.
    Frame(Arc<Frame>),
    /// Something must be read from the queue first: [`Feed::catch_up`].
    Behind,
    /// The client did not keep up, and what it should hear next is gone from the ring.
    Lagged,
}

/// Some of what a client missed.
#[derive(Debug, Default)]
pub(crate) struct Missed {
    /// Events that are no longer kept: the first and the last number.
    pub(crate) expired: Option<(u64, u64)>,
    /// The frames of those that are kept.
    pub(crate) frames: Vec<Arc<Frame>>,
}

impl Feed {
    /// Takes a place in the ring, and what to say first.
    pub(crate) fn new(hub: Hub, wish: Wish, start: Start) -> (Self, Utf8Bytes) {
        let ring = hub.subscribe(wish.hints());
        let Start { stream: asked, from } = start;
        let stream = asked.as_ref().and_then(|_| hub.stream());
        // The queue may have been replaced since the client was asked in.
        let from = if stream == asked { from } else { OTHER };
        let (last, behind) = match from {
            From::Head(_) => (hub.published(), false),
            From::Back(number) => (number, true),
            // What the first frame says is missing is not said again.
            From::After { number, oldest } => (number.max(oldest.saturating_sub(1)), true),
        };
        let feed = Self { hub, ring, stream, wish, last, behind };
        let first = feed.first(from);
        (feed, first)
    }

    fn first(&self, from: From) -> Utf8Bytes {
        let pod = &self.hub.settings().pod;
        let Some(stream) = self.stream.as_deref() else { return pod.greeting().into() };
        let token = |number| Token { stream, number };
        let (resumed, reason, missed) = match from {
            From::Head(reason) => (false, reason, None),
            From::Back(_) => (false, None, None),
            From::After { number, oldest } => {
                let gone = oldest > number + 1;
                (true, None, gone.then(|| Range { from: token(number + 1), to: token(oldest - 1) }))
            }
        };
        frame::json(&Hello {
            what: "hello",
            id: token(self.last),
            head: token(self.hub.published().max(self.last)),
            stream,
            resumed,
            reason,
            missed,
            pod: pod.name.as_deref(),
            namespace: pod.namespace.as_deref(),
            state: self.hub.drain().status().state.as_str(),
        })
    }

    /// Where the client is.
    pub(crate) fn place(&self) -> Token<'_> {
        self.token(self.last)
    }

    /// The event of this number.
    pub(crate) fn token(&self, number: u64) -> Token<'_> {
        Token { stream: self.stream(), number }
    }

    pub(crate) fn stream(&self) -> &str {
        self.stream.as_deref().unwrap_or_default()
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    pub(crate) fn is_json(&self) -> bool {
        matches!(self.wish, Wish::Json { .. })
    }

    pub(crate) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Waits for what comes next. May be dropped and called again: nothing is lost.
    pub(crate) async fn next(&mut self) -> Next {
        loop {
            if self.behind {
                return Next::Behind;
            }
            match self.ring.recv().await {
                Ok(frame) => {
                    if let Some(frame) = self.pass(frame) {
                        return Next::Frame(frame);
                    }
                }
                // It cannot be closed: the hub is here.
                Err(RecvError::Lagged(_) | RecvError::Closed) => return Next::Lagged,
            }
        }
    }

    /// What is in the ring for this client just now.
    pub(crate) fn ready(&mut self) -> Option<Arc<Frame>> {
        while !self.behind {
            match self.ring.try_recv() {
                Ok(frame) => {
                    if let Some(frame) = self.pass(frame) {
                        return Some(frame);
                    }
                }
                Err(TryRecvError::Empty | TryRecvError::Closed | TryRecvError::Lagged(_)) => return None,
            }
        }
        None
    }

    fn pass(&mut self, frame: Arc<Frame>) -> Option<Arc<Frame>> {
        if let (Some(number), Wish::Json { .. }) = (frame.number, &self.wish) {
            if number <= self.last {
                return None;
            }
            if number > self.last + 1 {
                self.behind = true;
                return None;
            }
            self.last = number;
        }
        self.wish.wants(&frame).then_some(frame)
    }

    /// Reads on from the queue: one page. The feed is no longer behind once a page has reached the queue's end.
    pub(crate) async fn catch_up(&mut self) -> Result<Missed, StoreError> {
        let log = self.hub.log().filter(|log| Some(log.stream()) == self.stream.as_deref());
        let Some(log) = log else {
            let detail = "the queue is not open, or is another one".to_owned();
            return Err(StoreError::Unavailable { why: Unavailable::Closed, detail });
        };
        // A new place in the ring, before the page is read.
        self.ring = self.hub.subscribe(self.wish.hints());
        let Events { events, oldest } = log.events(self.last, PAGE).await?;
        let first = events.first().map_or(oldest, |event| event.number);
        let expired = (first > self.last + 1).then(|| (self.last + 1, first - 1));
        self.last = events.last().map_or(first.saturating_sub(1).max(self.last), |event| event.number);
        self.behind = events.len() == PAGE;
        let frames = events.iter().map(|event| Frame::end(log.stream(), event));
        Ok(Missed { expired, frames: frames.filter(|frame| self.wish.wants(frame)).collect() })
    }
}
