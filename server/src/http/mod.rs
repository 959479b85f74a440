//! The built-in kind `http`: a task that is an HTTP call, made at least once, to a target of `--http-allow`.
//!
//! - [`allow`]: which targets may be called; [`address`], where they may be
//! - [`input`]: what is handed in, [`call`], how it is made, and [`answer`], what its answer means
//! - [`sign`]: how the callee knows that it is ours
//!
//! # Guarantees
//! - Nothing is called that the list does not allow: a submission of such a target is refused, and a task from before is dead.
//! - The call is in flight until its answer was taken to its end, or it was given up.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use serde_json::Value;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use uuid::Uuid;

use crate::kind::{Failure, InvalidInput, Kind};
use crate::running::Running;
use crate::trace::Traceparent;

mod address;
pub mod allow;
mod answer;
mod call;
mod input;
pub mod sign;

use allow::{Allow, Door};
pub use answer::Output;
use call::{CallError, Caller};
use input::Call;
pub use input::{Input, Verb};
use sign::Keys;

const AGENT: &str = concat!("graceful-server/", env!("CARGO_PKG_VERSION"));

/// The handler of the kind `http`.
#[derive(Clone)]
pub struct Http {
    allow: Allow,
    keys: Keys,
    caller: Caller,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("allow", &self.allow).field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// Calls nothing, and says so.
impl Default for Http {
    fn default() -> Self {
        let caller = Caller { lookup: call::system(), tls: None };
        Self { allow: Allow::default(), keys: Keys::default(), caller }
    }
}

impl Http {
    /// Calls what the list allows. `authorities` is a file of certificates (PEM) beside the system's own.
    ///
    /// # Errors
    /// When the file cannot be read, or the list has https targets and nobody vouches for any.
    pub fn new(allow: Allow, keys: Keys, authorities: Option<&Path>) -> anyhow::Result<Self> {
        let tls = if allow.needs_tls() { Some(connector(authorities)?) } else { None };
        Ok(Self { allow, keys, caller: Caller { lookup: call::system(), tls } })
    }

    /// The call and the way to it.
    fn read(&self, input: &Input) -> Result<(Call, Door), InvalidInput> {
        if self.allow.is_empty() {
            return Err(InvalidInput::forbidden(
                "url",
                "this server calls nothing; start it with --http-allow https://host (or GRACEFUL_HTTP_ALLOW)",
            ));
        }
        let call = input::read(input)?;
        match self.allow.door(&call.url) {
            Some(door) => Ok((call, door)),
            None => Err(InvalidInput::forbidden(
                "url",
                "is no target that this server may call; hand in another, or add it to the server's --http-allow",
            )),
        }
    }

    /// What the callee is told of the attempt.
    fn say(&self, headers: &mut HeaderMap, attempt: &Attempt, body: &[u8]) {
        let Attempt { id, number, trace, at } = attempt;
        let mut set = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        let seconds = at.as_second();
        set("idempotency-key", id.to_string());
        set("graceful-task-id", id.to_string());
        set("graceful-attempt", number.to_string());
        set("graceful-time", seconds.to_string());
        if let Some(signature) = self.keys.sign(*id, *number, seconds, body) {
            set("graceful-signature", signature);
        }
        if let Some(trace) = trace {
            set("traceparent", trace.to_string());
        }
        headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    }
}

/// What goes along with a call.
struct Attempt {
    id: Uuid,
    number: u16,
    trace: Option<Traceparent>,
    at: Timestamp,
}

impl Kind for Http {
    const NAME: &'static str = "http";
    type Input = Input;
    type Output = Output;

    fn schema(&self) -> Value {
        input::schema()
    }

    fn check(&self, input: &Input) -> Result<(), InvalidInput> {
        self.read(input).map(drop)
    }

    /// Of a queue that pods share, those have them that may make calls.
    fn is_on(&self) -> bool {
        !self.allow.is_empty()
    }

    async fn run(&self, input: Input, task: &Running) -> Result<Output, Failure> {
        // The list may have been another when it was handed in.
        let (mut call, door) = self.read(&input).map_err(Failure::fatal)?;
        drop(input);
        let attempt =
            Attempt { id: task.id(), number: task.attempt(), trace: task.trace(), at: Timestamp::now() };
        let body = call.body.clone();
        self.say(&mut call.headers, &attempt, &body);
        match self.caller.make(call, &door).await {
            Ok(answer) => answer.judged((attempt.number, task.backoff()), Timestamp::now(), rand::random()),
            // Another attempt would be led there again.
            Err(error @ CallError::Address) => Err(Failure::fatal(error)),
            Err(error) => Err(error.into()),
        }
    }
}

/// TLS by the system's certificate authorities and those in the file.
fn connector(authorities: Option<&Path>) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = authorities {
        let unusable = || format!("--http-ca {}: is no file of certificates in PEM", file.display());
        let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<_, _>>)
            .with_context(unusable)?;
        let (usable, _) = roots.add_parsable_certificates(certificates);
        anyhow::ensure!(usable > 0, unusable());
    }
    anyhow::ensure!(
        !roots.is_empty(),
        "--http-allow has https targets, and there are no certificate authorities here to know them by; give --http-ca a \
         file of certificates in PEM, such as a mounted ca-certificates.crt"
    );
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
