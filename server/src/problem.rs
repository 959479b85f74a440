//! What could not be done, as RFC 9457 problem documents. The seed's own errors are `{"detail": …}` and no more, which is
//! such a document too; the others say in `type` what kind of trouble it is, and in `field` where.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use graceful_store::{StoreError, Unavailable};
use serde::Serialize;
use utoipa::ToSchema;

use crate::kind::{InvalidInput, Unrunnable};
use crate::metrics::Refusal;

/// The content type of every error.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";
/// Tasks are taken many a second, so there is room soon.
const FULL_RETRY_SECONDS: u16 = 1;
/// A database that restarts, or a volume that is grown, takes some seconds at least.
const UNAVAILABLE_RETRY_SECONDS: u16 = 5;

/// Why a request failed.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    retry_seconds: Option<u16>,
    body: ProblemBody,
}

/// Why a request failed (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// What kind of trouble this is, for programs; without it, what the status says.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = "uri", example = "tag:graceful.dev,2026:invalid")]
    kind: Option<&'static str>,
    /// The same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "The request can't be understood")]
    title: Option<&'static str>,
    /// The HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u16, required = false, minimum = 400, maximum = 599, example = 400)]
    status: Option<u16>,
    /// What is wrong, and what to write instead.
    #[schema(value_type = String, example = "priority: 70000 is too high; write a whole number from -32768 to 32767")]
    detail: Cow<'static, str>,
    /// The field, parameter or header that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "priority")]
    field: Option<Cow<'static, str>>,
    /// Why the queue is unavailable, in a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Reason, required = false)]
    reason: Option<&'static str>,
}

/// Why the queue is unavailable: `disk` is full or may not be written, no `connection` to the database, the file or
/// the tables are `corrupt`, the queue is `closed` (not open yet, or no longer), it took `time` beyond the limit, or
/// another complaint of the `engine`.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes the words in the document")]
pub(crate) enum Reason {
    Disk,
    Connection,
    Corrupt,
    Closed,
    Busy,
    Time,
    Engine,
}

impl Problem {
    /// One that has no more to say than this, as the seed says it.
    pub(crate) const fn bare(status: StatusCode, detail: &'static str) -> Self {
        let body = ProblemBody {
            kind: None,
            title: None,
            status: None,
            detail: Cow::Borrowed(detail),
            field: None,
            reason: None,
        };
        Self { status, retry_seconds: None, body }
    }

    fn of(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        let body = ProblemBody {
            kind: Some(kind),
            title: Some(title),
            status: Some(status.as_u16()),
            detail: detail.into(),
            field: None,
            reason: None,
        };
        Self { status, retry_seconds: None, body }
    }

    fn field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.body.field = Some(field.into());
        self
    }

    /// A field, parameter or header has a value that can't be used; `detail` says what to write instead.
    pub(crate) fn invalid(field: impl Into<Cow<'static, str>>, detail: &str) -> Self {
        let field = field.into();
        let detail = format!("{field}: {detail}");
        Self::malformed(detail).field(field)
    }

    /// The same of a part of the request: `of` is the path to it.
    pub(crate) fn of_part(mut self, of: &str) -> Self {
        let field = self.body.field.take();
        self.body.field = Some(field.map_or_else(|| of.to_owned(), |field| format!("{of}.{field}")).into());
        self.body.detail = format!("{of}: {}", self.body.detail).into();
        self
    }

    /// The HTTP status, and what is wrong.
    pub(crate) fn said(&self) -> (u16, &str) {
        (self.status.as_u16(), &self.body.detail)
    }

    /// The request can't be read at all.
    pub(crate) fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        let kind = "tag:graceful.dev,2026:invalid";
        Self::of(StatusCode::BAD_REQUEST, kind, "The request can't be understood", detail)
    }

    /// No task of this id is known.
    pub(crate) const fn no_task() -> Self {
        Self::bare(StatusCode::NOT_FOUND, "Task not found")
    }

    /// No queue has the name that a task wants to wait in. Not 400: the same request may be taken once somebody has made the queue.
    pub(crate) fn unknown_queue(queue: &str) -> Self {
        let detail = format!(
            "queue: there is no queue `{queue}`; PUT /v1/queues/{queue} makes one, and GET /v1/queues lists them"
        );
        let kind = "tag:graceful.dev,2026:no-queue";
        Self::of(StatusCode::CONFLICT, kind, "There is no such queue", detail).field("queue")
    }

    /// No queue of this name is there.
    pub(crate) const fn no_queue() -> Self {
        Self::bare(StatusCode::NOT_FOUND, "Queue not found")
    }

    /// A queue cannot be made, or removed.
    pub(crate) fn queue_stays(detail: String) -> Self {
        let kind = "tag:graceful.dev,2026:queue-in-use";
        Self::of(StatusCode::CONFLICT, kind, "The queues cannot be changed so", detail)
    }

    /// What is asked for does not fit the state that the task is in.
    pub(crate) fn wrong_state(detail: String) -> Self {
        let kind = "tag:graceful.dev,2026:wrong-state";
        Self::of(StatusCode::CONFLICT, kind, "The task is in another state", detail)
    }

    /// The key came before, with other content.
    pub(crate) fn key_reused(id: uuid::Uuid) -> Self {
        let kind = "tag:graceful.dev,2026:idempotency-key-reused";
        let detail = format!(
            "Idempotency-Key: this key belongs to task {id}, which was submitted with other content; use a new key \
             for each task"
        );
        let title = "The key belongs to another task";
        Self::of(StatusCode::UNPROCESSABLE_ENTITY, kind, title, detail).field("Idempotency-Key")
    }

    /// The body is longer than may be.
    pub(crate) fn too_large(most: usize) -> Self {
        let kind = "tag:graceful.dev,2026:too-large";
        let detail =
            format!("the body is larger than {most} bytes; store large inputs elsewhere and hand in where");
        Self::of(StatusCode::PAYLOAD_TOO_LARGE, kind, "The body is too large", detail)
    }

    /// The body did not come in time.
    pub(crate) fn too_slow(seconds: u64) -> Self {
        let kind = "tag:graceful.dev,2026:too-slow";
        let detail =
            format!("the body did not arrive within {seconds} s; nothing was accepted, send it again");
        Self::of(StatusCode::REQUEST_TIMEOUT, kind, "The body came too slowly", detail)
    }

    /// The body is not JSON by its own word.
    pub(crate) fn media_type() -> Self {
        let kind = "tag:graceful.dev,2026:media-type";
        let detail = "Content-Type: send the body as application/json";
        Self::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, kind, "The body is not JSON", detail)
            .field("Content-Type")
    }

    /// The queue can't be asked; `why` is the word for it.
    fn unavailable(why: &'static str, detail: &'static str) -> Self {
        let kind = "tag:graceful.dev,2026:unavailable";
        let mut problem = Self::of(StatusCode::SERVICE_UNAVAILABLE, kind, "The queue is unavailable", detail);
        problem.body.reason = Some(why);
        problem.retry_seconds = Some(UNAVAILABLE_RETRY_SECONDS);
        problem
    }

    /// How a submission that failed so is counted.
    pub(crate) fn refusal(&self) -> Refusal {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => Refusal::Full,
            StatusCode::SERVICE_UNAVAILABLE => Refusal::Unavailable,
            _ => Refusal::Invalid,
        }
    }

    /// As many listen as may.
    pub(crate) fn crowded(status: StatusCode, retry_seconds: u16, detail: &'static str) -> Self {
        let kind = "tag:graceful.dev,2026:crowded";
        let crowded = Self::of(status, kind, "As many listen as may", detail);
        Self { retry_seconds: Some(retry_seconds), ..crowded }
    }

    /// The request is for a name that is not this server's.
    pub(crate) fn foreign_host(host: &str) -> Self {
        let kind = "tag:graceful.dev,2026:foreign-host";
        let detail = format!(
            "Host: {host} is no name of this server; ask by its address, or give the name to --allowed-hosts"
        );
        Self::of(StatusCode::MISDIRECTED_REQUEST, kind, "Another server's name", detail).field("Host")
    }

    /// A page of another site, which may not use this one.
    pub(crate) fn foreign_page(origin: &str) -> Self {
        let kind = "tag:graceful.dev,2026:foreign-page";
        let detail = format!(
            "Origin: pages of {origin} may not use this server; its --allowed-origins says which may"
        );
        Self::of(StatusCode::FORBIDDEN, kind, "A page of another site", detail).field("Origin")
    }

    /// The request has no token.
    pub(crate) fn no_token() -> Self {
        let kind = "tag:graceful.dev,2026:no-token";
        let detail = "Authorization: this server asks for a token; write Bearer and one of those that its --tokens file knows";
        Self::of(StatusCode::UNAUTHORIZED, kind, "A token is needed", detail).field("Authorization")
    }

    /// Its token is not among those of the file.
    pub(crate) fn unknown_token() -> Self {
        let kind = "tag:graceful.dev,2026:unknown-token";
        let detail =
            "Authorization: this token is not known here, or no more; ask who runs the server for another";
        Self::of(StatusCode::UNAUTHORIZED, kind, "The token is not known", detail).field("Authorization")
    }

    /// Its token is for other things.
    pub(crate) fn narrow_token(scope: &str) -> Self {
        let kind = "tag:graceful.dev,2026:narrow-token";
        let detail =
            format!("Authorization: this token is not for that; one with the scope {scope} is needed");
        Self::of(StatusCode::FORBIDDEN, kind, "The token is for other things", detail).field("Authorization")
    }

    /// The queue did not answer in time.
    pub(crate) fn no_answer() -> Self {
        Self::unavailable(
            "time",
            "The queue took too long. It may still do what was asked: look, or ask again.",
        )
    }
}

impl From<Unrunnable> for Problem {
    fn from(why: Unrunnable) -> Self {
        match why {
            Unrunnable::Kind { kind, known } => {
                Self::invalid("kind", &format!("there is no kind `{kind}`; write one of {known}"))
            }
            Unrunnable::Input(InvalidInput { field, detail, forbidden: false }) => {
                Self::invalid(field, &detail)
            }
            Unrunnable::Input(InvalidInput { field, detail, forbidden: true }) => {
                let kind = "tag:graceful.dev,2026:not-allowed";
                let detail = format!("{field}: {detail}");
                Self::of(StatusCode::FORBIDDEN, kind, "This server is not allowed to do that", detail)
                    .field(field)
            }
        }
    }
}

/// The engine's own words stay in the log: they may name hosts and tables.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => {
                let full = Self::bare(StatusCode::TOO_MANY_REQUESTS, "The queue is full");
                Self { retry_seconds: Some(FULL_RETRY_SECONDS), ..full }
            }
            // The queue logs it: once for an outage, and not once for each who asks in it.
            StoreError::Unavailable { why, detail: _ } => Self::unavailable(why.as_str(), said(why)),
        }
    }
}

const fn said(why: Unavailable) -> &'static str {
    match why {
        Unavailable::Disk => {
            "The queue's disk is full or can't be written. Nothing was accepted: try again later."
        }
        Unavailable::Connection => {
            "The queue's database can't be reached. Nothing was confirmed: try again later."
        }
        Unavailable::Corrupt => "The queue is damaged and waits for its operator. Try again later.",
        Unavailable::Busy => {
            "More is being submitted than the queue can write just now. Nothing was accepted: try again later."
        }
        Unavailable::Closed => "The queue is not open just now. Nothing was accepted: try again later.",
        Unavailable::Engine => "The queue could not do it. Nothing was confirmed: try again later.",
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.body).unwrap_or_default();
        let kind = HeaderValue::from_static(CONTENT_TYPE);
        let mut response = (self.status, [(header::CONTENT_TYPE, kind)], body).into_response();
        if let Some(seconds) = self.retry_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::REQUEST_TIMEOUT {
            // RFC 9110 §15.5.9: what else comes on this connection would be the rest of that body.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
