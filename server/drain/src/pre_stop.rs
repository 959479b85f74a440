//! What a preStop hook runs: asks the process over loopback, starts the drain if nobody has, and returns once the pod
//! is idle. The kubelet sends SIGTERM after that, to a pod with nothing to lose.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::status::{DrainStatus, State};

/// How long one poll is held.
const WAIT: Duration = Duration::from_secs(30);
/// What an answer may take beyond the time it is held: loopback to a process that may be busy.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A process that misses this many answers in a row is gone or hangs; SIGTERM is next either way.
const ATTEMPTS: u32 = 5;
const RETRY: Duration = Duration::from_millis(200);

/// Why a pod could not be seen idle.
#[derive(Debug, thiserror::Error)]
pub enum PreStopError {
    /// Nothing answers at the address.
    #[error("cannot reach the drain endpoint http://{address}/drain: {reason}; is the admin port right?")]
    Unreachable {
        /// Where it was asked.
        address: SocketAddr,
        /// Why the last attempt failed.
        reason: String,
    },
    /// Something answers, but not the protocol.
    #[error("http://{address}/drain does not speak the drain protocol: {reason}")]
    Unexpected {
        /// Where it was asked.
        address: SocketAddr,
        /// What is wrong with its answer.
        reason: String,
    },
}

/// Asks `127.0.0.1:port` and returns once the pod is idle: at once if it is, else as soon as its work is done. Bounded
/// by nothing but the kubelet's grace period.
///
/// # Errors
/// [`PreStopError`] when nothing there speaks the protocol.
pub async fn pre_stop(port: u16, linger: Duration) -> Result<DrainStatus, PreStopError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut seen: Option<DrainStatus> = None;
    loop {
        let status = ask(address, || poll(seen.as_ref())).await?;
        // A poll that ran into its time limit has nothing new to tell.
        let Some(status) = status.or(seen.take()) else { continue };
        if status.is_idle() {
            info!(epoch = status.epoch, "idle: nothing in flight and nothing accepted any more");
            return Ok(status);
        }
        seen = Some(match status.state {
            State::Serving => {
                let epoch = status.epoch + 1;
                info!(epoch, in_flight = status.in_flight.total(), "starting the drain: nobody has yet");
                // None: someone else was quicker with that epoch. The next poll tells who.
                let Some(started) = ask(address, || start(epoch, linger)).await? else { continue };
                if started.is_idle() {
                    // Without a linger it may be so at once, and a poll for news of it would find none.
                    return Ok(started);
                }
                started
            }
            State::Lingering | State::Draining | State::Idle | State::Terminating => status,
        });
    }
}

fn poll(seen: Option<&DrainStatus>) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = http::Uri::from_static("/drain");
    if let Some(etag) = seen.and_then(|status| status.etag().parse().ok()) {
        request.headers_mut().insert(header::IF_NONE_MATCH, etag);
        let wait = http::HeaderValue::from_str(&format!("wait={}", WAIT.as_secs()));
        request.headers_mut().extend(wait.map(|wait| (http::HeaderName::from_static("prefer"), wait)));
    }
    request
}

fn start(epoch: u64, linger: Duration) -> Request<Body> {
    // The protocol has whole seconds; a part of one counts as one.
    let seconds = linger.as_secs() + u64::from(linger.subsec_nanos() > 0);
    let body = serde_json::json!({"epoch": epoch, "lingerSeconds": seconds}).to_string();
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = Method::PUT;
    *request.uri_mut() = http::Uri::from_static("/drain");
    request
}

/// One question, asked again when nobody answers. None stands for 304 and 409: ask again for what is there now.
async fn ask(
    address: SocketAddr,
    question: impl Fn() -> Request<Body>,
) -> Result<Option<DrainStatus>, PreStopError> {
    let mut attempt = 1;
    let (code, body) = loop {
        let reason = match timeout(WAIT + ANSWER_TIMEOUT, exchange(address, question())).await {
            Ok(Ok(answer)) => break answer,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", (WAIT + ANSWER_TIMEOUT).as_secs()),
        };
        if attempt == ATTEMPTS {
            return Err(PreStopError::Unreachable { address, reason });
        }
        warn!(attempt, reason, "cannot ask for the drain's status; retrying");
        attempt += 1;
        sleep(RETRY).await;
    };
    match code {
        StatusCode::NOT_MODIFIED | StatusCode::CONFLICT => Ok(None),
        StatusCode::OK | StatusCode::ACCEPTED => serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| PreStopError::Unexpected { address, reason: error.to_string() }),
        other => Err(PreStopError::Unexpected { address, reason: format!("status {other}") }),
    }
}

type Anything = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(address: SocketAddr, mut request: Request<Body>) -> Result<(StatusCode, Bytes), Anything> {
    request.headers_mut().insert(header::HOST, address.to_string().parse()?);
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // On its own task: it ends with the answer's last byte, and must not win a race against that answer.
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let code = response.status();
    let body = http_body_util::Limited::new(response.into_body(), 64 * 1024).collect().await?;
    Ok((code, body.to_bytes()))
}
