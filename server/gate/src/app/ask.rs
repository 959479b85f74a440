//! One question to the app: one connection over loopback, one deadline over all of it, a bound on its bytes. What is not surely a count is an error.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use graceful_prometheus::{COUNT_LIMIT, LONGEST_PAGE, Page, PageError, whole};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::timeout;

use super::connect;
use super::question::{Counts, InFlight, WhenAbsent};

/// The most that is read of a JSON document, which is kept whole.
const LONGEST_DOCUMENT: usize = 64 * 1024;

/// Why there is no count. All of it is busy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("nothing listens there")]
    Refused,
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("cannot ask: {0}")]
    Io(String),
    #[error("it answered with status {0}, and not 200")]
    Status(u16),
    #[error("more than {0} bytes")]
    Long(usize),
    #[error("{0}")]
    Unreadable(String),
    #[error("{0} is not there")]
    Missing(String),
    #[error("{0} is no count: a whole number from 0 to 2^53 - 1")]
    NotACount(String),
}

impl From<PageError> for AskError {
    fn from(error: PageError) -> Self {
        match error {
            PageError::Unreadable { .. } | PageError::LongLine | PageError::NotWhole { .. } => {
                Self::Unreadable(error.to_string())
            }
            PageError::Missing { metric } | PageError::Empty { metric } => Self::Missing(metric),
            PageError::NotACount { what, found } => Self::NotACount(format!("{what}: {found}")),
        }
    }
}

/// Asks one app.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    question: InFlight,
    address: SocketAddr,
    authorization: Option<HeaderValue>,
}

impl Asker {
    pub(crate) fn new(question: InFlight, app: SocketAddr, authorization: Option<HeaderValue>) -> Self {
        let address = SocketAddr::new(app.ip(), question.port.map_or(app.port(), |port| port.get()));
        Self { question, address, authorization }
    }

    pub(crate) fn poll(&self) -> Duration {
        self.question.poll
    }

    /// What the app has in hand.
    pub(crate) async fn ask(&self) -> Result<u64, AskError> {
        let limit = self.question.timeout;
        let total = timeout(limit, self.total()).await.map_err(|_| AskError::Late(limit))??;
        Ok(total.saturating_sub(self.question.idle_at))
    }

    async fn total(&self) -> Result<u64, AskError> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = self.question.path.parse().map_err(|error| AskError::Io(format!("{error}")))?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let response = exchange(self.address, request).await?;
        if response.status() != 200 {
            return Err(AskError::Status(response.status().as_u16()));
        }
        let headers = response.headers();
        let framed = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
        let body = response.into_body();
        match &self.question.counts {
            Counts::Metrics(metrics) => {
                let mut page = Page::new(metrics, self.question.when_absent == WhenAbsent::Zero);
                read(body, LONGEST_PAGE, |piece| Ok(page.take(piece)?)).await?;
                Ok(page.end(framed)?)
            }
            Counts::JsonPointers(pointers) => {
                let mut document = Vec::new();
                let keep = |piece: &[u8]| {
                    document.extend_from_slice(piece);
                    Ok(())
                };
                read(body, LONGEST_DOCUMENT, keep).await?;
                sum(&document, pointers, self.question.when_absent, framed)
            }
        }
    }
}

/// One request and the head of its answer, on a connection of its own.
pub(crate) async fn exchange(
    app: SocketAddr,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, AskError> {
    let failed = |error: hyper::Error| AskError::Io(error.to_string());
    let host = HeaderValue::from_str(&app.to_string()).map_err(|error| AskError::Io(error.to_string()))?;
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let stream = connect(app).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => AskError::Refused,
        _ => AskError::Io(error.to_string()),
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // It ends with the answer, or when that is dropped.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(failed)
}

async fn read(
    mut body: Incoming,
    limit: usize,
    mut take: impl FnMut(&[u8]) -> Result<(), AskError>,
) -> Result<(), AskError> {
    let mut left = limit;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| AskError::Io(format!("the answer was cut: {error}")))?;
        let Some(piece) = frame.data_ref() else { continue };
        left = left.checked_sub(piece.len()).ok_or(AskError::Long(limit))?;
        take(piece)?;
    }
    Ok(())
}

fn sum(document: &[u8], pointers: &[String], when_absent: WhenAbsent, framed: bool) -> Result<u64, AskError> {
    if !framed && document.trim_ascii_end().last().is_some_and(u8::is_ascii_digit) {
        let why =
            "it ended with the connection, and perhaps in the middle of its number; send Content-Length";
        return Err(AskError::Unreadable(why.to_owned()));
    }
    let document: Value = serde_json::from_slice(document)
        .map_err(|error| AskError::Unreadable(format!("not JSON: {error}")))?;
    let mut total: u64 = 0;
    for pointer in pointers {
        let value = match document.pointer(pointer) {
            Some(value) => value,
            None if when_absent == WhenAbsent::Zero => continue,
            None => return Err(AskError::Missing(pointer.clone())),
        };
        let count =
            value.as_u64().filter(|count| *count < COUNT_LIMIT).or_else(|| value.as_f64().and_then(whole));
        total = total
            .saturating_add(count.ok_or_else(|| AskError::NotACount(format!("{pointer}: {value:.80}")))?);
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_added_up_and_nothing_else_is_a_count() {
        let of = |document: &str, pointers: &[&str], when_absent| {
            let pointers: Vec<_> = pointers.iter().map(|&pointer| pointer.to_owned()).collect();
            sum(document.as_bytes(), &pointers, when_absent, true).ok()
        };
        let document = r#"{"queue": {"waiting": 2}, "running": 3.0, "half": 0.5, "text": "3", "minus": -1}"#;
        assert_eq!(of(document, &["/queue/waiting", "/running"], WhenAbsent::Busy), Some(5));
        assert_eq!(of("7", &[""], WhenAbsent::Busy), Some(7));
        for pointer in ["/half", "/text", "/minus", "/queue", "/gone"] {
            assert_eq!(of(document, &["/running", pointer], WhenAbsent::Busy), None, "{pointer}");
        }
        assert_eq!(of(document, &["/running", "/gone"], WhenAbsent::Zero), Some(3));
        assert!(sum(b"12", &[String::new()], WhenAbsent::Busy, false).is_err(), "it may have been 120");
    }
}
