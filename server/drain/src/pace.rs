//! [`Paced`], a request's body that ends in an error where its client sends it too slowly: a counted request holds the drain,
//! and one byte a second would hold it for ever.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::{BoxError, Error};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// How slowly a client may send the body of a request that is counted. Only the time is counted in which the handler waits for
/// the client, so that a handler may take its own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowestBody {
    /// A body may be waited for so long, however little comes.
    pub grace: Duration,
    /// Each so many bytes that have come buy another second.
    pub bytes_per_second: u32,
}

impl Default for SlowestBody {
    /// 30 s and 1 KiB/s: any network that carries a page at all is faster, and an upload may stall for half a minute on its way.
    fn default() -> Self {
        Self { grace: Duration::from_secs(30), bytes_per_second: 1024 }
    }
}

impl SlowestBody {
    /// How long the client of so many bytes may have been waited for.
    fn patience(self, bytes: u64) -> Duration {
        let bought = bytes.saturating_mul(1000) / u64::from(self.bytes_per_second.max(1));
        self.grace.saturating_add(Duration::from_millis(bought))
    }
}

/// A request's body came too slowly, and was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request's body came too slowly")]
pub struct TooSlow;

pub(crate) struct Paced {
    body: Body,
    slowest: SlowestBody,
    bytes: u64,
    /// How long its client has been waited for, and since when it is now.
    waited: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    given_up: Arc<AtomicBool>,
}

impl Paced {
    /// Tells `given_up` when it does.
    pub(crate) fn new(body: Body, slowest: SlowestBody, given_up: Arc<AtomicBool>) -> Self {
        Self { body, slowest, bytes: 0, waited: Duration::ZERO, waiting: None, given_up }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.given_up.load(Ordering::Relaxed) {
            // Who reads on after the error is at the end.
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            if let Some((since, _)) = self.waiting.take() {
                self.waited += since.elapsed();
            }
            if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref)) {
                self.bytes += data.map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame);
        }
        let left = self.slowest.patience(self.bytes).saturating_sub(self.waited);
        let (_, end) = self.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(sleep_until(now + left)))
        });
        if end.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.given_up.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Err(Error::new(BoxError::from(TooSlow)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
