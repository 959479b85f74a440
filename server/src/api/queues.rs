//! `/v1/queues`: what tasks wait in, and what may run of each.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use graceful_store::{
    Backoff, DEFAULT_QUEUE, MOST_QUEUES, QueueCounts, QueuePut, QueueRecord, QueueRemoved, QueueSettings,
    Rate, TaskStore,
};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use crate::api::fields::{Fields, Object};
use crate::api::tasks::{JSON, written};
use crate::api::{Api, limits, queue_name};
use crate::backoff;
use crate::problem::{Problem, ProblemBody};

const MOST_PLACES: f64 = 1_000_000.0;
const MOST_RATE: f64 = 100_000.0;
/// One in a bit more than a quarter of an hour.
const LEAST_RATE: f64 = 0.001;
const MOST_ATTEMPTS: f64 = 100.0;
const LEAST_PAUSE_SECONDS: f64 = 0.01;
const MOST_PAUSE_SECONDS: f64 = 86_400.0;

/// What a queue's tasks may take. What is left out, or null, is not bounded, or is as the server was started: `{}` is a queue.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = QueueSettings, example = json!({"concurrency": 10, "rate_per_second": 5, "burst": 10}))]
pub(crate) struct SettingsBody {
    /// Tasks of it that run at once. Where pods share the queue, of all pods together.
    #[serde(default, serialize_with = "integer")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000)]
    concurrency: Option<f64>,
    /// Tasks of one `concurrency_key` that run at once.
    #[serde(default, serialize_with = "integer")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000)]
    concurrency_per_key: Option<f64>,
    /// Starts a second, further attempts among them.
    #[schema(minimum = 0.001, maximum = 100_000)]
    rate_per_second: Option<f64>,
    /// Starts at once after a rest. Without it, the rate, rounded up.
    #[serde(default, serialize_with = "integer")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000)]
    burst: Option<f64>,
    /// How often a task may be started that does not say so itself.
    #[serde(default, serialize_with = "integer")]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 100)]
    max_attempts: Option<f64>,
    /// The pause after a task's first failure; each further one is twice as long. Without it, a second.
    #[schema(minimum = 0.01, maximum = 86_400)]
    min_backoff_seconds: Option<f64>,
    /// No pause is longer. Without it, five minutes.
    #[schema(minimum = 0.01, maximum = 86_400)]
    max_backoff_seconds: Option<f64>,
}

/// Each field, and what to write into it.
const FIELDS: Fields = Fields(&[
    ("concurrency", "write a whole number from 1 to 1000000, or leave it out"),
    ("concurrency_per_key", "write a whole number from 1 to 1000000, or leave it out"),
    ("rate_per_second", "write a number from 0.001 to 100000, or leave it out"),
    ("burst", "write a whole number from 1 to 1000000 beside rate_per_second, or leave it out"),
    ("max_attempts", "write a whole number from 1 to 100, or leave it out"),
    ("min_backoff_seconds", "write a number of seconds from 0.01 to 86400, not above max_backoff_seconds"),
    ("max_backoff_seconds", "write a number of seconds from 0.01 to 86400"),
]);

/// A queue.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Queue)]
pub(crate) struct QueueOut {
    /// What to write as a task's `queue`.
    #[schema(example = "mail")]
    name: String,
    /// Nothing of it is started.
    paused: bool,
    /// What its tasks may take.
    settings: SettingsBody,
    /// Tasks that wait and are due.
    queued: u64,
    /// Tasks that wait for their time, or for their next attempt.
    delayed: u64,
    /// Tasks that run.
    running: u64,
    /// How long the one has been due that has waited the longest; 0 where none waits.
    oldest_seconds: f64,
}

/// All queues.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueueList {
    /// By name.
    queues: Vec<QueueOut>,
}

impl SettingsBody {
    fn of(settings: &QueueSettings) -> Self {
        let QueueSettings { concurrency, per_key, rate, max_attempts, backoff } = settings;
        let whole = |number: Option<NonZeroU32>| number.map(|number| f64::from(number.get()));
        Self {
            concurrency: whole(*concurrency),
            concurrency_per_key: whole(*per_key),
            rate_per_second: rate.map(|rate| rate.per_second),
            burst: whole(rate.map(|rate| rate.burst)),
            max_attempts: max_attempts.map(f64::from),
            min_backoff_seconds: backoff.map(|backoff| backoff.first.as_secs_f64()),
            max_backoff_seconds: backoff.map(|backoff| backoff.longest.as_secs_f64()),
        }
    }

    fn read(body: &[u8]) -> Result<QueueSettings, Problem> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let Object(read): Object<Self> = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            match FIELDS.instead(&path) {
                Some(instead) => Problem::invalid(path, instead),
                None if path != "." && path != "?" => {
                    let instead = format!("is no field of a queue; write some of {}", FIELDS.names());
                    Problem::invalid(path, &instead)
                }
                None => Problem::malformed(format!(
                    "the body: {}; write a JSON object, at least {{}}",
                    error.inner()
                )),
            }
        })?;
        json.end().map_err(|error| Problem::malformed(format!("the body is not JSON: {error}")))?;
        read.settings()
    }

    fn settings(self) -> Result<QueueSettings, Problem> {
        let Self {
            concurrency,
            concurrency_per_key,
            rate_per_second,
            burst,
            max_attempts,
            min_backoff_seconds,
            max_backoff_seconds,
        } = self;
        let rate = FIELDS.within("rate_per_second", rate_per_second, LEAST_RATE, MOST_RATE)?;
        let burst = many("burst", burst, MOST_PLACES)?;
        if burst.is_some() && rate.is_none() {
            return Err(FIELDS.wanted("burst"));
        }
        let rate = rate.map(|per_second| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
            let usual = NonZeroU32::new(per_second.ceil() as u32).unwrap_or(NonZeroU32::MIN);
            Rate { per_second, burst: burst.unwrap_or(usual) }
        });
        let first = FIELDS.within(
            "min_backoff_seconds",
            min_backoff_seconds,
            LEAST_PAUSE_SECONDS,
            MOST_PAUSE_SECONDS,
        )?;
        let longest = FIELDS.within(
            "max_backoff_seconds",
            max_backoff_seconds,
            LEAST_PAUSE_SECONDS,
            MOST_PAUSE_SECONDS,
        )?;
        let backoff = match (first.map(Duration::from_secs_f64), longest.map(Duration::from_secs_f64)) {
            (None, None) => None,
            (Some(first), None) => Some(Backoff { first, longest: backoff::USUAL.longest.max(first) }),
            (None, Some(longest)) => Some(Backoff { first: backoff::USUAL.first.min(longest), longest }),
            (Some(first), Some(longest)) if first > longest => {
                return Err(FIELDS.wanted("min_backoff_seconds"));
            }
            (Some(first), Some(longest)) => Some(Backoff { first, longest }),
        };
        Ok(QueueSettings {
            concurrency: many("concurrency", concurrency, MOST_PLACES)?,
            per_key: many("concurrency_per_key", concurrency_per_key, MOST_PLACES)?,
            rate,
            max_attempts: many("max_attempts", max_attempts, MOST_ATTEMPTS)?
                .and_then(|most| u16::try_from(most.get()).ok()),
            backoff,
        })
    }
}

impl QueueOut {
    fn of(queue: QueueRecord) -> Self {
        let QueueRecord { name, settings, paused, counts } = queue;
        let QueueCounts { queued, delayed, running, oldest } = counts;
        let oldest_seconds = oldest.unwrap_or_default().as_secs_f64();
        Self { name, paused, settings: SettingsBody::of(&settings), queued, delayed, running, oldest_seconds }
    }
}

/// A whole number from 1.
fn many(field: &'static str, value: Option<f64>, most: f64) -> Result<Option<NonZeroU32>, Problem> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and in range")]
    Ok(FIELDS.whole(field, value, 1.0, most)?.and_then(|value| NonZeroU32::new(value as u32)))
}

/// A whole number, which needs no point.
fn integer<S: Serializer>(number: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "made from a whole number in range"
    )]
    number.map(|number| number as u32).serialize(to)
}

/// The path's name.
type Name = Result<Path<String>, PathRejection>;

/// What cannot name a queue names none.
fn known(name: Name) -> Result<String, Problem> {
    let Path(name) = name.map_err(|_| Problem::no_queue())?;
    queue_name::check(&name).map(|()| name).map_err(|_| Problem::no_queue())
}

async fn find(api: &Api, store: &Arc<dyn TaskStore>, name: &str) -> Result<Json<QueueOut>, Problem> {
    let queues = limits::ask(&api.queue, store.queues()).await?;
    let found = queues.into_iter().find(|queue| queue.name == name).ok_or(Problem::no_queue())?;
    Ok(Json(QueueOut::of(found)))
}

/// List queues
///
/// All of them, and what waits and runs in each: where pods share the queue that of all pods, else this pod's. The counts are up
/// to a second old.
#[utoipa::path(get, path = "/v1/queues", operation_id = "list_queues", tag = "queues", responses(
    (status = 200, description = "The queues.", body = QueueList),
    (status = 503, description = "The queue is unavailable.", body = ProblemBody),
))]
pub(crate) async fn list(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let store = api.queue.store()?;
    let room = api.rooms.list().await?;
    let queues = limits::ask(&api.queue, store.queues()).await?;
    let list = QueueList { queues: queues.into_iter().map(QueueOut::of).collect() };
    Ok(([JSON], written(room, &list)).into_response())
}

/// Look at a queue
#[utoipa::path(get, path = "/v1/queues/{name}", operation_id = "read_queue", tag = "queues",
    params(("name" = String, Path, description = "The queue's name.")),
    responses(
        (status = 200, description = "The queue.", body = QueueOut),
        (status = 404, description = "There is no such queue.", body = ProblemBody),
        (status = 503, description = "The queue is unavailable.", body = ProblemBody),
    ))]
pub(crate) async fn read(State(api): State<Arc<Api>>, name: Name) -> Result<Json<QueueOut>, Problem> {
    let name = known(name)?;
    find(&api, &api.queue.store()?, &name).await
}

/// Make a queue, or give it other settings
///
/// The settings are those of the body: what it leaves out is not bounded any more. Whether it is paused stays as it is. It
/// holds at once, on disk, and for all pods that share the queue.
#[utoipa::path(put, path = "/v1/queues/{name}", operation_id = "put_queue", tag = "queues",
    request_body(content = SettingsBody, description = "What its tasks may take."),
    params(("name" = String, Path, description = "The queue's name.", min_length = 1, max_length = 64, pattern = "^[a-z0-9_-]+$")),
    responses(
        (status = 201, description = "There is such a queue now.", body = QueueOut),
        (status = 200, description = "It has these settings now.", body = QueueOut),
        (status = 400, description = "The name, a field, or the body can't be used; `field` names it.", body = ProblemBody),
        (status = 409, description = "There are as many queues as there may be, 500.", body = ProblemBody),
        limits::BodyRefused,
        (status = 503, description = "The queue is unavailable.", body = ProblemBody),
    ))]
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    name: Name,
    request: Request,
) -> Result<(StatusCode, Json<QueueOut>), Problem> {
    let Path(name) = name.map_err(|_| Problem::invalid("name", "write it as UTF-8"))?;
    queue_name::check(&name).map_err(|instead| Problem::invalid("name", &instead))?;
    let settings = SettingsBody::read(&body(&api, request).await?)?;
    let store = api.queue.store()?;
    let status = match limits::ask(&api.queue, store.put_queue(&name, settings)).await? {
        QueuePut::New => StatusCode::CREATED,
        QueuePut::Changed => StatusCode::OK,
        QueuePut::TooMany => {
            return Err(Problem::queue_stays(format!(
                "there are {MOST_QUEUES} queues; remove one that is not used"
            )));
        }
    };
    Ok((status, find(&api, &store, &name).await?))
}

async fn body(api: &Api, request: Request) -> Result<Bytes, Problem> {
    let (parts, body) = request.into_parts();
    let (body, _room) = limits::body(&api.rooms, &parts.headers, body).await?;
    if body.is_empty() {
        return Err(Problem::malformed("the body is empty; write a JSON object, at least {}"));
    }
    limits::is_json(&parts.headers)?;
    Ok(body)
}

/// Remove a queue
///
/// One in which nothing waits or runs; what has ended is remembered as before. To empty it, let it work, or cancel its tasks.
#[utoipa::path(delete, path = "/v1/queues/{name}", operation_id = "remove_queue", tag = "queues",
    params(("name" = String, Path, description = "The queue's name.")),
    responses(
        (status = 204, description = "It is gone."),
        (status = 404, description = "There is no such queue.", body = ProblemBody),
        (status = 409, description = "Tasks wait or run in it; or it is `default`, which is always there.", body = ProblemBody),
        (status = 503, description = "The queue is unavailable.", body = ProblemBody),
    ))]
pub(crate) async fn remove(State(api): State<Arc<Api>>, name: Name) -> Result<StatusCode, Problem> {
    let name = known(name)?;
    let store = api.queue.store()?;
    match limits::ask(&api.queue, store.remove_queue(&name)).await? {
        QueueRemoved::Now => Ok(StatusCode::NO_CONTENT),
        QueueRemoved::Unknown => Err(Problem::no_queue()),
        QueueRemoved::InUse if name == DEFAULT_QUEUE => {
            Err(Problem::queue_stays("`default` is the queue of tasks that name none; it stays".to_owned()))
        }
        QueueRemoved::InUse => Err(Problem::queue_stays(format!(
            "tasks wait or run in `{name}`: let it work, or cancel them (GET /v1/tasks?queue={name}&state=queued,running)"
        ))),
    }
}

/// Pause a queue
///
/// Nothing of it is started any more, on any pod that shares it; what runs goes on. It stays paused, restarts or not, until it is
/// resumed. With SQLite its waiting tasks are in flight all the same: a paused queue with tasks in it holds its pod's drain.
#[utoipa::path(post, path = "/v1/queues/{name}/pause", operation_id = "pause_queue", tag = "queues",
    params(("name" = String, Path, description = "The queue's name.")),
    responses(
        (status = 200, description = "It is paused.", body = QueueOut),
        (status = 404, description = "There is no such queue.", body = ProblemBody),
        (status = 503, description = "The queue is unavailable.", body = ProblemBody),
    ))]
pub(crate) async fn pause(State(api): State<Arc<Api>>, name: Name) -> Result<Json<QueueOut>, Problem> {
    set_paused(&api, name, true).await
}

/// Resume a queue
#[utoipa::path(post, path = "/v1/queues/{name}/resume", operation_id = "resume_queue", tag = "queues",
    params(("name" = String, Path, description = "The queue's name.")),
    responses(
        (status = 200, description = "It is not paused.", body = QueueOut),
        (status = 404, description = "There is no such queue.", body = ProblemBody),
        (status = 503, description = "The queue is unavailable.", body = ProblemBody),
    ))]
pub(crate) async fn resume(State(api): State<Arc<Api>>, name: Name) -> Result<Json<QueueOut>, Problem> {
    set_paused(&api, name, false).await
}

async fn set_paused(api: &Api, name: Name, paused: bool) -> Result<Json<QueueOut>, Problem> {
    let name = known(name)?;
    let store = api.queue.store()?;
    if limits::ask(&api.queue, store.pause_queue(&name, paused)).await? {
        find(api, &store, &name).await
    } else {
        Err(Problem::no_queue())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<QueueSettings, String> {
        SettingsBody::read(body.as_bytes()).map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn all_that_is_said_is_kept_and_nothing_is_bounded_that_is_not() {
        assert_eq!(read("{}").unwrap(), QueueSettings::default());
        let all = r#"{"concurrency": 3, "concurrency_per_key": 1.0, "rate_per_second": 2.5, "burst": null, "max_attempts": 5,
            "min_backoff_seconds": 0.5, "max_backoff_seconds": 60}"#;
        let read = read(all).unwrap();
        let told = serde_json::to_value(SettingsBody::of(&read)).unwrap();
        let expected = serde_json::json!({
            "concurrency": 3, "concurrency_per_key": 1, "rate_per_second": 2.5, "burst": 3, "max_attempts": 5,
            "min_backoff_seconds": 0.5, "max_backoff_seconds": 60.0,
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_write() {
        for (body, said) in [
            (r#"{"concurrency": 0}"#, "concurrency: write a whole number from 1"),
            (r#"{"concurrency": 1.5}"#, "concurrency: write a whole number"),
            (r#"{"concurrency": "3"}"#, "concurrency: write a whole number"),
            (r#"{"concurency": 3}"#, "concurency: is no field of a queue; write some of concurrency,"),
            (r#"{"rate_per_second": 0}"#, "rate_per_second: write a number from 0.001"),
            (r#"{"burst": 3}"#, "burst: write a whole number from 1 to 1000000 beside rate_per_second"),
            (r#"{"min_backoff_seconds": 9, "max_backoff_seconds": 3}"#, "min_backoff_seconds: write"),
            ("[]", "write a JSON object"),
            ("[1, 1, 1, 1, 1, 1, 1]", "expected a JSON object"),
            ("{} {}", "the body is not JSON"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(said), "{body}: {error}");
        }
    }
}
