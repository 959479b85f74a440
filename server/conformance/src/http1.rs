//! HTTP/1.1 as plain as it gets: one connection in hand, so that it can be held, left and watched.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc;
use http::{HeaderMap, Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// More than any answer here needs to have.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;

pub(crate) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

pub(crate) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

/// A body that is sent as it is handed over.
pub(crate) fn piecemeal() -> (mpsc::UnboundedSender<Bytes>, Body) {
    let (pieces, body) = mpsc::unbounded();
    (pieces, StreamBody::new(body.map(|piece| Ok(Frame::data(piece)))).boxed_unsync())
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// When its request's first byte was about to be sent, and when its head was here.
    pub(crate) sent: Instant,
    pub(crate) head: Instant,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn succeeded(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

/// Dropped, it ends at once, whatever is under way: a client that has gone.
pub(crate) struct Connection {
    sender: SendRequest<Body>,
    driving: JoinHandle<()>,
    authority: String,
    /// The peer sees a loopback address.
    pub(crate) loopback: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

impl Connection {
    pub(crate) async fn open(authority: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let loopback = stream.local_addr()?.ip().to_canonical().is_loopback();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let driving = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { sender, driving, authority: authority.to_owned(), loopback })
    }

    /// The head of the answer; its body is still to come.
    pub(crate) async fn begin(&mut self, mut request: Request<Body>) -> Result<Response<Incoming>, String> {
        if let Ok(host) = self.authority.parse() {
            request.headers_mut().entry(header::HOST).or_insert(host);
        }
        self.sender.send_request(request).await.map_err(|error| chain(&error))
    }

    pub(crate) async fn exchange(&mut self, request: Request<Body>) -> Result<Answer, String> {
        let sent = Instant::now();
        let response = self.begin(request).await?;
        read(response, sent).await
    }

    /// Waits until the other side has closed it.
    pub(crate) async fn closed(&mut self, limit: Duration) -> bool {
        timeout(limit, &mut self.driving).await.is_ok()
    }
}

/// The whole answer, from its head on.
pub(crate) async fn read(response: Response<Incoming>, sent: Instant) -> Result<Answer, String> {
    let head = Instant::now();
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|error| error.to_string())?;
    Ok(Answer { code: parts.status.as_u16(), headers: parts.headers, body: body.to_bytes(), sent, head })
}

/// An error with what it comes from: hyper's own text rarely says it.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
