//! Guards: what is in flight is what has a guard that lives. Dropping counts out, also on panic and cancellation.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use uuid::Uuid;

use crate::core::{Ticket, Work};
use crate::drain::{Drain, Refused};

impl Drain {
    /// Counts a request, or refuses it. [`crate::Gate`] does this for HTTP; call it for work that comes by other ways.
    ///
    /// # Errors
    /// [`Refused`] once the latch is closed.
    pub fn try_request(&self) -> Result<RequestGuard, Refused> {
        self.admit(Work::Request).map(|ticket| RequestGuard::new(self.clone(), ticket))
    }

    /// Counts a queued task that no request brings (a timer's, a message's), or refuses it. A task that a request
    /// brings comes from [`RequestGuard::queue_task`], which cannot fail.
    ///
    /// # Errors
    /// [`Refused`] once the latch is closed.
    pub fn try_task(&self) -> Result<TaskGuard, Refused> {
        self.admit(Work::Queued).map(|ticket| TaskGuard::new(self.clone(), ticket))
    }

    /// Counts an open upgraded connection. It holds no drain up; it is told at the end by its [`crate::Farewell`].
    #[must_use]
    pub fn connection(&self) -> ConnectionGuard {
        self.change(|core, _| core.connect());
        ConnectionGuard::new(self.clone())
    }
}

/// A request in flight. The gate puts one in each request's extensions, and it is an extractor: a handler that takes
/// it can queue tasks. Clones are the same request, counted until the last clone is gone: moved into a spawned task,
/// it keeps the request counted there.
#[derive(Debug, Clone)]
pub struct RequestGuard(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    drain: Drain,
    ticket: Ticket,
    work: Work,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.drain.release(self.ticket, self.work);
    }
}

impl RequestGuard {
    fn new(drain: Drain, ticket: Ticket) -> Self {
        Self(Arc::new(Counted { drain, ticket, work: Work::Request }))
    }

    /// Counts a task that this request brings. It cannot be refused: the request was accepted, and what it brings is
    /// counted before the request is counted out, so no reading in between can show an idle pod.
    #[must_use]
    pub fn queue_task(&self) -> TaskGuard {
        TaskGuard::new(self.0.drain.clone(), self.0.drain.count(Work::Queued))
    }
}

impl<S: Sync> FromRequestParts<S> for RequestGuard {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let missing =
            "this route takes work but is outside of the drain gate: add `.layer(drain.gate())` to it";
        parts.extensions.get::<Self>().cloned().ok_or((StatusCode::INTERNAL_SERVER_ERROR, missing))
    }
}

/// A task in flight: queued until [`TaskGuard::start`], then running until it is dropped.
#[derive(Debug)]
pub struct TaskGuard(Counted);

impl TaskGuard {
    fn new(drain: Drain, ticket: Ticket) -> Self {
        Self(Counted { drain, ticket, work: Work::Queued })
    }

    /// The task runs now. Its age goes on from when it was queued.
    pub fn start(&mut self) {
        if self.0.work == Work::Queued {
            self.0.drain.shift(Work::Queued, Work::Running);
            self.0.work = Work::Running;
        }
    }

    /// Counts a task that this task brings; like a request's, it cannot be refused.
    #[must_use]
    pub fn queue_task(&self) -> Self {
        Self::new(self.0.drain.clone(), self.0.drain.count(Work::Queued))
    }
}

/// An open upgraded connection. It is not in flight; it is counted as a connection and told when to go.
#[derive(Debug)]
pub struct ConnectionGuard(Drain);

impl ConnectionGuard {
    fn new(drain: Drain) -> Self {
        Self(drain)
    }

    /// When this connection has to say goodbye; each has its own place in the spread.
    #[must_use]
    pub fn farewell(&self) -> Farewell {
        let spread = self.0.settings().farewell_spread.as_nanos().max(1);
        // A v4 uuid is 122 random bits: enough for a jitter, without another dependency.
        let nanos = u64::try_from(Uuid::new_v4().as_u128() % spread).unwrap_or_default();
        Farewell { drain: self.0.clone(), delay: Duration::from_nanos(nanos) }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.disconnect();
    }
}

/// Tells one open connection that its time has come: SIGTERM was received and nothing is in flight any more.
#[derive(Debug, Clone)]
pub struct Farewell {
    drain: Drain,
    delay: Duration,
}

impl Farewell {
    /// This connection's place in the spread, for an app that awaits [`Drain::farewell_time`] once for all its connections.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Waits for the time to send the last frame and close with 1012 (service restart).
    pub async fn told(&self) {
        self.drain.farewell_time().await;
        tokio::time::sleep(self.delay).await;
    }
}
