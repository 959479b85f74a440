//! [`Gate`], the tower layer in front of the routes: it counts a request in before anything else sees it, and counts it out when
//! its response's body has ended or was dropped. A body that its client sends too slowly is given up.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::BoxError;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, StatusCode, Version};
use hyper::body::{Frame, SizeHint};
use tower::{Layer, Service};

use crate::drain::Drain;
use crate::guard::RequestGuard;
use crate::pace::Paced;

type Refusal = Arc<dyn Fn() -> Response + Send + Sync>;

/// The admission gate as a layer. Routes that must answer during a drain (health, reads) stay outside of it.
#[derive(Clone)]
pub struct Gate {
    drain: Drain,
    refusal: Refusal,
}

impl Drain {
    /// A gate that refuses with 503, `Retry-After` and a short JSON body.
    #[must_use]
    pub fn gate(&self) -> Gate {
        let body = r#"{"detail":"draining: no new work is accepted"}"#;
        self.gate_with(move || {
            (StatusCode::SERVICE_UNAVAILABLE, [(CONTENT_TYPE, "application/json")], body).into_response()
        })
    }

    /// A gate that refuses with the app's own response; the gate adds `Retry-After` and `Connection: close`.
    #[must_use]
    pub fn gate_with(&self, refusal: impl Fn() -> Response + Send + Sync + 'static) -> Gate {
        Gate { drain: self.clone(), refusal: Arc::new(refusal) }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.clone() }
    }
}

/// A service behind a [`Gate`].
#[derive(Debug, Clone)]
pub struct Gated<S> {
    inner: S,
    gate: Gate,
}

impl<S, B> Service<Request<B>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let version = request.version();
        let drain = self.gate.drain.clone();
        let Ok(guard) = drain.try_request() else {
            let mut response = (self.gate.refusal)();
            let retry = HeaderValue::from(drain.settings().retry_after_seconds);
            response.headers_mut().entry(RETRY_AFTER).or_insert(retry);
            close_if_winding_down(&drain, version, &mut response);
            return Box::pin(async move { Ok(response) });
        };
        request.extensions_mut().insert(guard.clone());
        let given_up = Arc::new(AtomicBool::new(false));
        let request = request.map(|body| match drain.settings().slowest_body {
            Some(slowest) if !body.is_end_stream() => {
                Body::new(Paced::new(Body::new(body), slowest, given_up.clone()))
            }
            _ => Body::new(body),
        });
        // The service that was made ready must be the one called; its clone stays for the next request.
        let next = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let mut response = ready.call(request).await?;
            // The handler only knows that the body broke off.
            let failed = response.status().is_client_error() || response.status().is_server_error();
            if failed && given_up.load(Ordering::Relaxed) {
                response = too_slow();
            }
            close_if_winding_down(&drain, version, &mut response);
            Ok(response.map(|body| Body::new(GuardedBody { body, guard: Some(guard) })))
        })
    }
}

/// What is left of the body is not waited for, so that the connection ends with this answer.
fn too_slow() -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CONNECTION, "close")];
    (StatusCode::REQUEST_TIMEOUT, headers, r#"{"detail":"the request's body came too slowly"}"#)
        .into_response()
}

/// From lingering on, an HTTP/1 answer says that its connection ends with it, so that the client's next request goes
/// to another pod. An upgrade is left alone: its `Connection` header means something else.
pub(crate) fn close_if_winding_down(drain: &Drain, version: Version, response: &mut Response) {
    let http1 = matches!(version, Version::HTTP_10 | Version::HTTP_11);
    if http1 && response.status() != StatusCode::SWITCHING_PROTOCOLS && drain.winding_down() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// A response's body that keeps its request counted until it ends or is dropped.
struct GuardedBody {
    body: Body,
    guard: Option<RequestGuard>,
}

impl hyper::body::Body for GuardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.guard = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
