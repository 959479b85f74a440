//! No request that changes anything leaves this process while it does not lead. No dry run either: only the leader would act on its answer.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Uri};
use kube::Client;
use kube::client::Body;
use tower::{BoxError, Service};

use super::Leadership;
use crate::error::{ANSWER_WITHIN, NotLeading};

/// The same client, which writes while this process leads, and only then.
pub(crate) fn leading(client: Client, leadership: Leadership) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(Leading { client, leadership }, namespace)
}

/// Asks as the request is handed on, and not as it is made.
struct Leading {
    client: Client,
    leadership: Leadership,
}

impl Service<Request<Body>> for Leading {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(())) // the client waits by itself
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if !reads {
            if !self.leadership.held() {
                return async { Err(NotLeading.into()) }.boxed();
            }
            bound(request.uri_mut(), ANSWER_WITHIN);
        }
        let client = self.client.clone();
        async move { Ok(client.send(request).await?) }.boxed()
    }
}

/// Has the API server itself give the request up after so long, webhooks included, and name the one that it was waiting for.
fn bound(uri: &mut Uri, within: Duration) {
    let joint = if uri.query().is_some() { '&' } else { '?' };
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut parts = uri.clone().into_parts();
    // What is added is of plain characters; should it not be one all the same, our own deadline holds.
    let Ok(path) = format!("{path}{joint}timeout={}s", within.as_secs()).parse() else { return };
    parts.path_and_query = Some(path);
    if let Ok(bounded) = Uri::from_parts(parts) {
        *uri = bounded;
    }
}

#[cfg(test)]
mod tests;
