//! `--on-drain`: a call to the app as a drain begins, so that it stops taking work from elsewhere (a message queue, a timer).

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use graceful_drain::{Drain, State};
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::ask::{AskError, exchange};
use super::question::fit_for_a_request;

/// How long the app may take to answer the call.
const ANSWER: Duration = Duration::from_secs(5);
/// An app that does not take the call is told again, and then the drain goes on without: it is no condition of it.
const ATTEMPTS: u32 = 5;
const AGAIN: Duration = Duration::from_secs(1);

/// The call that tells the app that its pod drains.
#[derive(Debug, Clone)]
pub struct OnDrain {
    method: Method,
    path: String,
    body: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    method: Option<String>,
    path: String,
    #[serde(default)]
    body: String,
}

impl FromStr for OnDrain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Written { method, path, body } = serde_json::from_str(text).map_err(|error| error.to_string())?;
        fit_for_a_request(&path)?;
        let method = method.as_deref().unwrap_or("POST").to_ascii_uppercase();
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| format!("method: {method:?} is none; write \"POST\""))?;
        Ok(Self { method, path, body })
    }
}

/// Calls once a drain, and says in `told` that it has: that the app knows, or that it was given up.
pub(super) async fn tell(call: OnDrain, app: SocketAddr, drain: Drain, told: watch::Sender<bool>) {
    loop {
        drain.wait_until(|status| status.state != State::Serving).await;
        deliver(&call, app).await;
        told.send_replace(true);
        drain.wait_until(|status| status.state == State::Serving).await;
        told.send_replace(false);
    }
}

async fn deliver(call: &OnDrain, app: SocketAddr) {
    for attempt in 1..=ATTEMPTS {
        let why = match timeout(ANSWER, exchange(app, request(call))).await {
            Ok(Ok(response)) if response.status().is_success() => {
                info!(path = call.path, "told the app that a drain begins");
                return;
            }
            Ok(Ok(response)) => AskError::Status(response.status().as_u16()),
            Ok(Err(error)) => error,
            Err(_) => AskError::Late(ANSWER),
        };
        let left = ATTEMPTS - attempt;
        warn!(path = call.path, left, "cannot tell the app that a drain begins: {why}");
        if left > 0 {
            sleep(AGAIN).await;
        }
    }
}

fn request(call: &OnDrain) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::from(call.body.clone()));
    *request.method_mut() = call.method.clone();
    // It was parsed when the flag was.
    *request.uri_mut() = call.path.parse().unwrap_or_default();
    if serde_json::from_str::<serde::de::IgnoredAny>(&call.body).is_ok() {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    request
}
