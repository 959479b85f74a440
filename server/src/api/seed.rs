//! The seed's routes, answer for answer, so that its clients work unchanged. `create-task` is `POST /v1/tasks` with
//! nothing said, and is kept as cheap as it looks.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use graceful_drain::{RequestGuard, State as DrainState};
use serde::Serialize;
use tracing::Instrument;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::submission::{Refused, SubmissionHeaders};
use crate::api::tasks::{REPLAYED, TRUE, accept};
use crate::api::{Api, SHUTTING_DOWN, limits, submission};
use crate::problem::{Problem, ProblemBody};
use crate::trace;

/// A task that was accepted.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskAccepted {
    /// `Task <id> Queued`.
    message: String,
    /// The task's id.
    task_id: Uuid,
}

/// How much there is to do.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueueLength {
    /// Tasks that wait or run.
    task_lenth: u64,
}

/// Whether new tasks are welcome.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Health {
    /// `ok`, or that the pod drains.
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
}

/// Hand in a task of the default kind
///
/// No body is needed, and one that comes is not read. It is a task like any other: the same as `POST /v1/tasks` with
/// `{}`.
#[utoipa::path(post, path = "/v1/create-task/", operation_id = "create_task", tag = "seed",
    params(SubmissionHeaders),
    responses(
        (status = 200, description = "The task is queued and will be done.", body = TaskAccepted,
            headers(("Idempotency-Replayed" = Option<String>,
                description = "`true` when an earlier request with the same key brought the task.")),
            links(
                ("read" = (operation_id = "read_task", parameters(("id" = "$response.body#/task_id")))),
                ("cancel" = (operation_id = "cancel_task", parameters(("id" = "$response.body#/task_id")))),
            )),
        (status = 400, description = "The `Idempotency-Key` can't be used.", body = ProblemBody),
        Refused,
    ))]
pub(crate) async fn create_task(
    State(api): State<Arc<Api>>,
    guard: RequestGuard,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    create(&api, &guard, &headers).await.inspect_err(|problem| api.metrics.refused(problem.refusal()))
}

async fn create(api: &Api, guard: &RequestGuard, headers: &HeaderMap) -> Result<Response, Problem> {
    let key = limits::idempotency_key(headers)?;
    let mut task = submission::plain(key, &api.defaults, |queue| api.queue.attempts(queue));
    let task_id = task.id;
    let (span, parent) = trace::submission(headers, task_id, &task.kind);
    task.trace = parent.map(|parent| parent.to_string());
    let told = |task_id| Json(TaskAccepted { message: format!("Task {task_id} Queued"), task_id });
    match accept(api, task, guard).instrument(span).await? {
        None => Ok(told(task_id).into_response()),
        Some(known) => Ok(([(REPLAYED, TRUE)], told(known.id)).into_response()),
    }
}

/// How many tasks wait or run
///
/// With SQLite those of this pod, with PostgreSQL those of the whole queue. (The name of the field is what the first
/// clients were given.)
#[utoipa::path(get, path = "/v1/get_queue_length/", operation_id = "queue_length", tag = "seed", responses(
    (status = 200, description = "The count.", body = QueueLength),
    (status = 503, description = "The queue is unavailable.", body = ProblemBody),
))]
pub(crate) async fn queue_length(State(api): State<Arc<Api>>) -> Result<Json<QueueLength>, Problem> {
    let task_lenth = if api.queue.shared() {
        let store = api.queue.store()?;
        let counts = limits::ask(&api.queue, store.counts()).await?;
        counts.queued + counts.delayed + counts.running
    } else {
        // What the drain knows of: exact, and without asking the disk.
        let in_flight = api.drain.status().in_flight;
        in_flight.queued + in_flight.running
    };
    Ok(Json(QueueLength { task_lenth }))
}

/// Whether new tasks are welcome
///
/// Not for a liveness probe: it fails while the pod drains.
#[utoipa::path(get, path = "/v1/health", operation_id = "health", tag = "seed", responses(
    (status = 200, description = "They are.", body = Health),
    (status = 503, description = "The pod drains.", body = Health),
))]
pub(crate) async fn health(State(api): State<Arc<Api>>) -> Response {
    match api.drain.status().state {
        DrainState::Serving => Json(Health { status: "ok" }).into_response(),
        DrainState::Lingering | DrainState::Draining | DrainState::Idle | DrainState::Terminating => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: SHUTTING_DOWN })).into_response()
        }
    }
}
