//! Answers of the gate's own: what is wrong, in one line of JSON, as graceful-drain's own gate says it.

use bytes::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::body::Answer;

/// Why there is no answer of the app's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The latch is closed.
    Draining { retry_after: u32 },
    /// Nothing accepts at the app's port.
    NotThere,
    /// The app ended the exchange without an answer, or its answer is none.
    Died,
    /// The app did not begin its answer in time.
    Late,
    /// The client paused too long in its body.
    SlowClient,
    /// CONNECT.
    Connect,
    /// A transfer coding that cannot be passed on.
    Coding,
    /// A `Host` that is missing, there twice, or none.
    Host,
    /// A target that is none.
    Target,
    /// The request's body breaks off, or its chunks are none.
    Body,
}

impl Refusal {
    pub(super) fn answer(self) -> Response<Answer> {
        let (status, detail) = match self {
            Self::Draining { .. } => (StatusCode::SERVICE_UNAVAILABLE, "draining: no new work is accepted"),
            Self::NotThere => {
                (StatusCode::SERVICE_UNAVAILABLE, "the app is not there: nothing accepts at its port")
            }
            Self::Died => (StatusCode::BAD_GATEWAY, "the app ended the connection without an answer"),
            Self::Late => (StatusCode::GATEWAY_TIMEOUT, "the app did not begin its answer in time"),
            Self::SlowClient => (StatusCode::REQUEST_TIMEOUT, "the request's body did not go on in time"),
            Self::Connect => (StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not for this server"),
            Self::Coding => (StatusCode::NOT_IMPLEMENTED, "no transfer coding but chunked can be passed on"),
            Self::Host => (StatusCode::BAD_REQUEST, "a request has one Host, and it is a host"),
            Self::Target => (StatusCode::BAD_REQUEST, "the request's target begins with a slash or a scheme"),
            Self::Body => (StatusCode::BAD_REQUEST, "the request's body cannot be read"),
        };
        let body = Bytes::from(format!("{{\"detail\":\"{detail}\"}}"));
        let mut response = Response::new(Answer::text(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self {
            Self::Draining { retry_after } => headers.insert(RETRY_AFTER, HeaderValue::from(retry_after)),
            Self::NotThere => headers.insert(RETRY_AFTER, HeaderValue::from(1)),
            // Whoever writes so may mean its next bytes in another way than they would be read. (Over HTTP/2 there are none of these.)
            Self::Coding | Self::Host | Self::Target | Self::Body => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"))
            }
            Self::Died | Self::Late | Self::SlowClient | Self::Connect => None,
        };
        response
    }
}
