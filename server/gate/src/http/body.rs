//! Bodies as they stream, both ways, and what ends with them: a request's place in the counts, and the lease on the app's connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use graceful_drain::RequestGuard;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::pool::Lease;
use crate::metrics::Timed;

/// How long a body is kept back for a client that expects 100 Continue, while the app says nothing. Some never do, and the client would wait as long.
const CONTINUE: Duration = Duration::from_secs(1);

type Anything = Box<dyn std::error::Error + Send + Sync>;
type Hold = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How far an exchange is, for both of its bodies.
#[derive(Debug, Default)]
pub(super) struct Progress {
    sent: AtomicBool,
    answered: AtomicBool,
    slow: AtomicBool,
    broken: AtomicBool,
    go_on: Notify,
}

impl Progress {
    /// The request's body has ended.
    pub(super) fn sent(&self) -> bool {
        self.sent.load(Ordering::Acquire)
    }

    /// The app has begun its answer: from now on both sides may take their time.
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Release);
    }

    /// The client paused for too long.
    pub(super) fn slow(&self) -> bool {
        self.slow.load(Ordering::Acquire)
    }

    /// What the client sent is no body, or its connection ended in the midst of it.
    pub(super) fn broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// The app said 100 Continue.
    pub(super) fn go_on(&self) {
        self.go_on.notify_one();
    }
}

/// A request's body on its way to the app.
pub(super) struct Outgoing {
    body: Incoming,
    progress: Arc<Progress>,
    hold: Option<Hold>,
    pause: Option<Duration>,
    /// Since the last piece; made with the first wait.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Outgoing {
    /// `pause` bounds how long the client may pause before the answer begins. With `expects` the body waits for the app's 100 Continue.
    pub(super) fn new(body: Incoming, pause: Option<Duration>, expects: bool) -> (Self, Arc<Progress>) {
        let progress = Arc::new(Progress::default());
        progress.sent.store(body.is_end_stream(), Ordering::Release);
        let hold = expects.then(|| -> Hold {
            let progress = progress.clone();
            Box::pin(async move {
                let _ = timeout(CONTINUE, progress.go_on.notified()).await;
            })
        });
        (Self { body, progress: progress.clone(), hold, pause, waiting: None }, progress)
    }

    /// Nothing comes from the client: waits, and ends the body when it has been too long.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Anything> {
        let Some(pause) = self.pause else { return Poll::Pending };
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(pause)));
        ready!(waiting.as_mut().poll(cx));
        if self.progress.answered.load(Ordering::Acquire) {
            // No limit any more; the next piece wakes us.
            self.pause = None;
            return Poll::Pending;
        }
        self.progress.slow.store(true, Ordering::Release);
        Poll::Ready("the client paused too long in the request's body".into())
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Anything;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Anything>>> {
        let this = self.get_mut();
        if let Some(hold) = &mut this.hold {
            ready!(hold.as_mut().poll(cx));
            this.hold = None;
        }
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => this.wait(cx).map(|error| Some(Err(error))),
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(waiting), Some(pause)) = (&mut this.waiting, this.pause) {
                    waiting.as_mut().reset(Instant::now() + pause);
                }
                // The last piece of a body whose length is known is not always followed by its end.
                if this.body.is_end_stream() {
                    this.progress.sent.store(true, Ordering::Release);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.progress.sent.store(true, Ordering::Release);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                this.progress.broken.store(true, Ordering::Release);
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body on its way to the client.
pub(super) enum Answer {
    /// The gate's own.
    Text(Option<Bytes>),
    /// The app's, and what it holds until its end.
    App(Incoming, Option<Held>),
}

/// What an answer keeps until its last byte was handed over, or its client has gone.
pub(super) struct Held {
    /// Before the guard: what is counted out is also measured.
    pub(super) _timed: Timed,
    pub(super) _guard: RequestGuard,
    /// Back to the pool only if the answer was read to its end.
    pub(super) lease: Option<Lease>,
}

impl Answer {
    pub(super) fn text(text: Bytes) -> Self {
        Self::Text(Some(text))
    }

    pub(super) fn empty() -> Self {
        Self::Text(None)
    }
}

impl Held {
    fn end(self) {
        if let Some(lease) = self.lease {
            lease.give_back();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::App(body, held) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                match &frame {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => *held = None,
                    None => held.take().into_iter().for_each(Held::end),
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::App(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::App(body, _) => body.size_hint(),
        }
    }
}

impl Drop for Answer {
    /// A body that is known to be over is dropped without being asked once more.
    fn drop(&mut self) {
        if let Self::App(body, held) = self
            && body.is_end_stream()
        {
            held.take().into_iter().for_each(Held::end);
        }
    }
}
