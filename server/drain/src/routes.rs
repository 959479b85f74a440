//! `/drain` over HTTP: the routes of the admin port.

#[cfg(not(feature = "tokens"))]
use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, put};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::caller::{Action, Caller};
use crate::core::Conflict;
use crate::drain::Drain;
use crate::status::{DrainStatus, EPOCH_LIMIT};
#[cfg(feature = "tokens")]
use crate::tokens::Refusal;

/// The longest a poll is held. A held poll costs one task; five minutes is well past what any client asks for, and
/// short enough that connections left behind by a dead client don't pile up.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The longest linger a request may ask for. Endpoints propagate in seconds; an hour is surely a mistake in units.
const LONGEST_LINGER: u64 = 3600;

/// In bytes. A drain takes thirty.
const LONGEST_BODY: usize = 4096;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

impl Drain {
    /// All of `/drain`, for the admin port.
    pub fn routes(&self) -> Router {
        self.read_routes().merge(self.write_routes())
    }

    /// `GET /drain` alone.
    pub fn read_routes(&self) -> Router {
        Router::new().route("/drain", get(show)).with_state(self.clone())
    }

    /// `PUT` and `DELETE /drain` alone, so that a layer of your own that checks who asks can be put on them. Where the operator's keys are known
    /// ([`Settings::keys`](crate::Settings::keys)), its tokens are checked here either way.
    pub fn write_routes(&self) -> Router {
        Router::new()
            .route("/drain", put(start))
            .route("/drain", delete(resume))
            .layer(DefaultBodyLimit::max(LONGEST_BODY))
            .with_state(self.clone())
    }
}

async fn show(State(drain): State<Drain>, headers: HeaderMap) -> Response {
    let status = drain.status();
    if !knows(&headers, &status.etag()) {
        return answer(StatusCode::OK, &status);
    }
    let Some(wait) = preferred_wait(&headers) else {
        return not_modified(&status.etag());
    };
    let news = drain.news(|status| knows(&headers, &status.etag()));
    let mut response = match timeout(wait, news).await {
        Ok(status) if !knows(&headers, &status.etag()) => answer(StatusCode::OK, &status),
        Ok(_) | Err(_) => not_modified(&status.etag()),
    };
    if let Ok(applied) = HeaderValue::from_str(&format!("wait={}", wait.as_secs())) {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    response
}

async fn start(
    State(drain): State<Drain>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let grant = caller.grant(&drain, Action::Drain)?;
    let body = body?;
    let body: Value = serde_json::from_slice(&body).map_err(|error| Problem {
        status: StatusCode::BAD_REQUEST,
        field: None,
        challenge: None,
        detail: format!("the body is not JSON ({error}); send {{\"epoch\": 7, \"lingerSeconds\": 3}}"),
    })?;
    if !body.is_object() {
        let detail = "the body is not a JSON object; send {\"epoch\": 7, \"lingerSeconds\": 3}".to_owned();
        return Err(Problem {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            field: None,
            challenge: None,
            detail,
        });
    }
    let epoch = valid_epoch(body.get("epoch").and_then(Value::as_u64), body.get("epoch"))?;
    grant.covers(epoch)?;
    let linger = match body.get("lingerSeconds") {
        None => drain.settings().linger,
        Some(given) => match given.as_u64().filter(|seconds| *seconds <= LONGEST_LINGER) {
            Some(seconds) => Duration::from_secs(seconds),
            None => {
                let must = format!("must be a whole number from 0 to {LONGEST_LINGER}, not {given}");
                return Err(Problem::field("lingerSeconds", &must));
            }
        },
    };
    let status = drain.start_for(epoch, linger, caller.is_in_the_pod()).map_err(Problem::from)?;
    Ok(answer(StatusCode::ACCEPTED, &status))
}

async fn resume(
    State(drain): State<Drain>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let grant = caller.grant(&drain, Action::Resume)?;
    let query = query.unwrap_or_default();
    let given = query.split('&').find_map(|pair| pair.strip_prefix("epoch="));
    let epoch = valid_epoch(given.and_then(|text| text.parse().ok()), given.map(Value::from).as_ref())?;
    grant.covers(epoch)?;
    let status = drain.resume(epoch).map_err(Problem::from)?;
    Ok(answer(StatusCode::OK, &status))
}

fn valid_epoch(epoch: Option<u64>, given: Option<&Value>) -> Result<u64, Problem> {
    match (epoch, given) {
        (Some(epoch), _) if (1..EPOCH_LIMIT).contains(&epoch) => Ok(epoch),
        (_, None) => Err(Problem::field("epoch", "is missing; give a whole number above the last one used")),
        (_, Some(given)) => {
            Err(Problem::field("epoch", &format!("must be a whole number from 1 to 2^53 - 1, not {given}")))
        }
    }
}

fn answer(code: StatusCode, status: &DrainStatus) -> Response {
    let headers = [(header::ETAG, status.etag()), (header::CACHE_CONTROL, "no-store".to_owned())];
    (code, headers, axum::Json(status)).into_response()
}

fn not_modified(etag: &str) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response()
}

/// Whether `If-None-Match` names this tag (RFC 9110 §13.1.2: weak comparison).
fn knows(headers: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
}

/// `Prefer: wait=N` (RFC 7240 §4.3), at most [`LONGEST_WAIT`]. What can't be read is ignored, as the RFC wants it.
fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let preferences = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut named =
        preferences.flat_map(|value| value.split([',', ';'])).filter_map(|one| one.split_once('='));
    let (_, seconds) = named.find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))?;
    let seconds = seconds.trim().trim_matches('"').parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// A refusal that says what to send instead (RFC 9457).
struct Problem {
    status: StatusCode,
    field: Option<&'static str>,
    /// `WWW-Authenticate`, for a 401.
    challenge: Option<String>,
    detail: String,
}

impl Problem {
    fn field(field: &'static str, must: &str) -> Self {
        let detail = format!("{field} {must}");
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, field: Some(field), challenge: None, detail }
    }
}

#[cfg(feature = "tokens")]
impl From<Refusal> for Problem {
    /// RFC 6750 §3: no error code where no token was given. The description is there for clients that read no bodies, as the operator.
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        let challenge = match refusal {
            Refusal::Missing => "Bearer realm=\"drain\"".to_owned(),
            _ => format!(
                "Bearer realm=\"drain\", error=\"invalid_token\", error_description=\"{}\"",
                quotable(&detail)
            ),
        };
        Self { status: StatusCode::UNAUTHORIZED, field: refusal.claim(), challenge: Some(challenge), detail }
    }
}

/// What may stand between quotes in a header: ids may be anything that an environment can hold.
#[cfg(feature = "tokens")]
fn quotable(text: &str) -> String {
    text.chars().map(|c| if matches!(c, ' '..='~') && c != '"' && c != '\\' { c } else { '?' }).collect()
}

#[cfg(not(feature = "tokens"))]
impl From<Infallible> for Problem {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<BytesRejection> for Problem {
    /// The body was too long, or broke off.
    fn from(rejection: BytesRejection) -> Self {
        let status = rejection.status();
        let detail = match status {
            StatusCode::PAYLOAD_TOO_LARGE => {
                format!("the body is over {LONGEST_BODY} bytes; send {{\"epoch\": 7, \"lingerSeconds\": 3}}")
            }
            _ => rejection.body_text(),
        };
        Self { status, field: None, challenge: None, detail }
    }
}

impl From<Conflict> for Problem {
    fn from(conflict: Conflict) -> Self {
        let field = match conflict {
            Conflict::Stale { .. } => Some("epoch"),
            Conflict::Terminating => None,
        };
        Self { status: StatusCode::CONFLICT, field, challenge: None, detail: conflict.to_string() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, field, challenge, detail } = self;
        let title = status.canonical_reason();
        let mut body = json!({"title": title, "status": status.as_u16(), "detail": detail});
        if let Some(field) = field {
            body["field"] = Value::from(field);
        }
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, body.to_string()).into_response();
        if let Some(challenge) = challenge.and_then(|text| HeaderValue::from_str(&text).ok()) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
