//! One question over one connection: HTTP/1.1 on a plain TCP stream to a pod's IP, and nothing more.
//!
//! # Guarantees
//! No DNS, no proxy, no redirect, no decompression. One deadline over connecting, headers and body, so that a byte a second meets it.
//! No more of a body is read than its [`Sink`] allows, and no more is held than what the sink keeps and [`BUFFER`]. The address is checked here,
//! in the one place that connects.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use tokio::net::TcpStream;

use super::address::permitted;
use super::error::{AskError, excerpt};
use crate::error::NotLeading;
use crate::leader::Leadership;

/// What a connection may hold of an answer that nobody has read yet, its head included.
const BUFFER: usize = 64 * 1024;

/// RFC 9110 §5.6.7.
const HTTP_DATE: DateTimeParser = DateTimeParser::new();

/// What takes an answer's body while it comes in.
pub(crate) trait Sink: Send {
    /// The most bytes that it takes.
    fn limit(&self) -> usize;

    /// The next piece of the body.
    fn take(&mut self, piece: &[u8]) -> Result<(), AskError>;
}

/// What is sent.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) method: Method,
    pub(crate) address: SocketAddr,
    /// Path and query.
    pub(crate) path: &'a str,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// For connecting, headers and body together.
    pub(crate) deadline: Duration,
}

/// What came back beside the body.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) etag: Option<HeaderValue>,
    /// By the pod's own clock.
    pub(crate) date: Option<Timestamp>,
    /// Why it refuses, where it does: `WWW-Authenticate`.
    pub(crate) challenge: Option<String>,
    /// HTTP said where the body ends. Without, it ended with the connection, and may have been cut.
    pub(crate) framed: bool,
}

/// Asks pods. There is no setting that widens what it may reach.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asker {
    leadership: Leadership,
    #[cfg(test)]
    reach_loopback: bool,
}

impl Asker {
    /// For tests against real servers on this machine. Production code has no such function.
    #[cfg(test)]
    pub(crate) fn that_reaches_loopback() -> Self {
        Self { reach_loopback: true, ..Self::default() }
    }

    /// Tells pods anything only while this is held.
    pub(crate) fn led_by(mut self, leadership: Leadership) -> Self {
        self.leadership = leadership;
        self
    }

    /// Sends the question, and reads the whole answer within the deadline. The body of a success goes into the sink; that of any other answer
    /// says nothing that is read.
    pub(crate) async fn ask(&self, question: Question<'_>, sink: &mut impl Sink) -> Result<Reply, AskError> {
        let address = self.checked(question.address)?;
        let (seconds, deadline) = (question.deadline.as_secs(), question.deadline);
        tokio::time::timeout(deadline, exchange(&self.leadership, address, question, sink))
            .await
            .unwrap_or_else(|_| Err(AskError::Timeout { address: address.to_string(), seconds }))
    }

    /// The address in its canonical form, if it may be asked.
    pub(super) fn checked(&self, address: SocketAddr) -> Result<SocketAddr, AskError> {
        #[cfg(test)]
        if self.reach_loopback && address.ip().is_loopback() {
            return Ok(address);
        }
        Ok(SocketAddr::new(permitted(address.ip())?, address.port()))
    }
}

async fn exchange(
    leadership: &Leadership,
    address: SocketAddr,
    question: Question<'_>,
    sink: &mut impl Sink,
) -> Result<Reply, AskError> {
    let host = address.to_string();
    let path = question.path.to_owned();
    let stream = TcpStream::connect(address).await.map_err(|e| AskError::from_io(&host, e))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| transport(&host, &e))?;
    let request = request(&host, question)?;
    // Here and not before: connecting may have taken long.
    if *request.method() != Method::GET && !leadership.held() {
        return Err(NotLeading.into());
    }
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| transport(&host, &e))?;
        let (parts, body) = response.into_parts();
        refuse_the_unreadable(&path, parts.status, &parts.headers)?;
        let framed =
            body.size_hint().exact().is_some() || parts.headers.contains_key(header::TRANSFER_ENCODING);
        if parts.status.is_success() {
            pour(&host, &path, body, sink).await?;
        }
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        Ok(Reply {
            status: parts.status,
            etag: parts.headers.get(header::ETAG).cloned(),
            date: text(header::DATE).and_then(|date| HTTP_DATE.parse_timestamp(date).ok()),
            challenge: text(header::WWW_AUTHENTICATE).map(reason_in),
            framed,
        })
    };
    // The connection must be driven for the answer to come; it may end first, with the answer's last bytes still to be read.
    tokio::pin!(answer);
    tokio::select! {
        reply = &mut answer => reply,
        _ended = connection => answer.await,
    }
}

async fn pour(host: &str, path: &str, mut body: Incoming, sink: &mut impl Sink) -> Result<(), AskError> {
    let limit = sink.limit();
    let too_large = || AskError::TooLarge { path: path.to_owned(), limit };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut left = limit;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| transport(host, &e))?;
        // Trailers say nothing that is read.
        let Some(piece) = frame.data_ref() else { continue };
        left = left.checked_sub(piece.len()).ok_or_else(too_large)?;
        sink.take(piece)?;
    }
    Ok(())
}

fn request(host: &str, question: Question<'_>) -> Result<Request<Full<Bytes>>, AskError> {
    let Question { method, path, headers, body, .. } = question;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("graceful-operator/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::CONNECTION, "close")
        .body(Full::new(body))
        .map_err(|e| AskError::NotHttp { address: host.to_owned(), why: e.to_string() })?;
    request.headers_mut().extend(headers);
    Ok(request)
}

fn refuse_the_unreadable(path: &str, status: StatusCode, headers: &HeaderMap) -> Result<(), AskError> {
    let text =
        |name| headers.get(name).map(|v: &HeaderValue| excerpt(&String::from_utf8_lossy(v.as_bytes())));
    if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        let location = text(header::LOCATION).unwrap_or_default();
        return Err(AskError::Redirect { path: path.to_owned(), code: status.as_u16(), location });
    }
    match text(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            Err(AskError::Encoded { path: path.to_owned(), encoding })
        }
        Some(_) | None => Ok(()),
    }
}

/// What a challenge says to a person, if it does (RFC 6750 §3): all else of it is the same each time.
fn reason_in(challenge: &str) -> String {
    let described = challenge.split_once("error_description=\"").and_then(|(_, rest)| rest.split_once('"'));
    excerpt(described.map_or(challenge, |(words, _)| words))
}

fn transport(host: &str, error: &hyper::Error) -> AskError {
    if let Some(io) = source_of::<io::Error>(error) {
        return AskError::from_io(host, io.kind().into());
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return AskError::Reset { address: host.to_owned() };
    }
    AskError::NotHttp { address: host.to_owned(), why: excerpt(&error.to_string()) }
}

fn source_of<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests;
