//! What an attempt to ask a pod can meet: a class for the metric, a sentence for a person that says what to do.

use std::io;

use graceful_prometheus::PageError;

use super::address::Forbidden;
use crate::error::NotLeading;

/// A failed attempt. Each means: unknown, hence busy.
///
/// A variant's name in snake_case is a label value of a metric (`docs/operator-metrics.md` lists them): alerts depend on it.
#[derive(Debug, thiserror::Error, strum::EnumDiscriminants)]
#[strum_discriminants(
    name(AskErrorClass),
    vis(pub(crate)),
    doc = "Which [`AskError`] it was.",
    derive(strum::IntoStaticStr),
    cfg_attr(test, derive(strum::VariantArray)),
    strum(serialize_all = "snake_case")
)]
pub(crate) enum AskError {
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error(
        "connection refused: nothing listens on {address}; check inFlight.port, and that the app listens on all addresses"
    )]
    Refused { address: String },
    #[error(
        "no answer from {address} within {seconds} s; is the app stuck, or does a NetworkPolicy keep the operator's namespace away?"
    )]
    Timeout { address: String, seconds: u64 },
    #[error(
        "{address} closed the connection without an answer; if a mesh demands mTLS, exclude the port (Istio: \
         traffic.sidecar.istio.io/excludeInboundPorts, Linkerd: config.linkerd.io/skip-inbound-ports)"
    )]
    Reset { address: String },
    #[error("{address} cannot be reached: {why}")]
    Unreachable { address: String, why: io::Error },
    #[error("{address} does not speak HTTP/1.1 ({why}); name the port that does in inFlight.port")]
    NotHttp { address: String, why: String },
    #[error("{path} answered {code}; {}", advice(*.code))]
    Status { path: String, code: u16 },
    #[error(
        "{path} answered {code}, a redirect to {location:?}, and none is followed; put the path itself in inFlight.path"
    )]
    Redirect { path: String, code: u16, location: String },
    #[error(
        "the answer of {path} is longer than {limit} bytes; name an endpoint that answers the count alone"
    )]
    TooLarge { path: String, limit: usize },
    #[error(
        "the answer of {path} is encoded ({encoding}) though no encoding was asked for; switch compression off there"
    )]
    Encoded { path: String, encoding: String },
    #[error("the answer is not JSON ({why})")]
    NotJson { why: String },
    #[error("the answer is not the Prometheus text format: {why}")]
    NotPrometheus { why: String },
    #[error("the answer is not a v1 DrainStatus: {why}")]
    NotProtocol { why: String },
    #[error(
        "it does not know yet what it has in flight: {why}; with a gate see inFlight, and that the app listens on loopback"
    )]
    NotKnown {
        /// Its own words.
        why: String,
        /// The process that says so, which can be told to drain all the same.
        boot_id: Option<String>,
    },
    #[error("the answer has nothing at {pointer:?}; check inFlight.jsonPointers")]
    PointerMissing { pointer: String },
    #[error(
        "no series matches {metric}; check inFlight.metrics (a metric that is absent is not zero; if it comes only with the first job, write \
         inFlight.whenAbsent: Zero)"
    )]
    MetricMissing { metric: String },
    #[error(
        "no series matches {metric}, and the page has no other series either: with inFlight.whenAbsent: Zero one other at least must be there, \
         since an exporter that is only starting answers with an empty page"
    )]
    PageEmpty { metric: String },
    #[error("{what} is {found}; it must be a whole number, 0 or more and below 2^53")]
    NotACount { what: String, found: String },
    #[error(
        "the answer is from pod uid {found:?}, not from this pod; answer with the env variable GRACEFUL_POD_UID as podUid"
    )]
    WrongPod { found: String },
    #[error("the pod refuses the epoch (409): it has seen a higher one, or is terminating")]
    Conflict,
    #[error("401: {}", challenge.as_deref().unwrap_or("without a word"))]
    Unauthorized {
        /// Its own words.
        challenge: Option<String>,
    },
    #[error("the pod was restarted while it was told something; it is told again")]
    AnotherProcess,
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
}

impl AskError {
    /// What metrics count it as.
    pub(crate) fn class(&self) -> AskErrorClass {
        self.into()
    }

    /// From a failure of the transport.
    pub(crate) fn from_io(address: &str, error: io::Error) -> Self {
        let address = address.to_owned();
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused { address },
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::UnexpectedEof => Self::Reset { address },
            _ => Self::Unreachable { address, why: error },
        }
    }
}

impl From<PageError> for AskError {
    fn from(error: PageError) -> Self {
        match error {
            PageError::Unreadable { what, line } => {
                Self::NotPrometheus { why: format!("{what} the line {:?}", excerpt(&line)) }
            }
            PageError::LongLine | PageError::NotWhole { .. } => {
                Self::NotPrometheus { why: error.to_string() }
            }
            PageError::Missing { metric } => Self::MetricMissing { metric },
            PageError::Empty { metric } => Self::PageEmpty { metric },
            PageError::NotACount { what, found } => Self::NotACount { what, found },
        }
    }
}

fn advice(code: u16) -> &'static str {
    match code {
        401 | 403 => "the in-flight endpoint must answer without credentials",
        404 => "check inFlight.path",
        405 => {
            "the drain protocol needs GET, PUT and DELETE there; with another endpoint use another inFlight.format"
        }
        500..=599 => "see the app's own log",
        _ => "a 200 was expected",
    }
}

/// Cuts what a pod said to a length that fits in a status: it is foreign text, and may be long or unprintable.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 80;
    let printable: String =
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() { format!("{printable}…") } else { printable }
}
