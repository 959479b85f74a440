//! `/v1/tasks`: hand in, list, look at, cancel, try again.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use graceful_drain::RequestGuard;
use graceful_store::{Cancelled, Change, Hold, NewTask, Retried, Submitted, TaskRecord};
use jiff::Timestamp;
use serde::Serialize;
use tracing::Instrument;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::Api;
use crate::api::limits;
use crate::api::query::Listing;
use crate::api::rooms::Room;
use crate::api::submission::{self, NewTaskBody, Refused, SubmissionHeaders};
use crate::api::view::{Task, TaskState};
use crate::events::hint::{Hint, What};
use crate::metrics::Ended;
use crate::problem::{Problem, ProblemBody};
use crate::trace;

/// Says that the answer tells of a task that an earlier request with the same key brought.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The path's id. What is no uuid is no task.
pub(crate) type TaskId = Result<Path<Uuid>, PathRejection>;

/// Some of the tasks.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskList<'a> {
    /// The newest first.
    tasks: Vec<Task<'a>>,
    /// The `cursor` of the next page; null at the end.
    #[schema(required)]
    next: Option<Uuid>,
}

/// Hand in a task
///
/// It is on disk before the answer comes, and is then done whatever happens to the pod.
///
/// With an `Idempotency-Key`, a submission can be repeated when its answer was lost: the same key with the same
/// content (the input letter for letter, but for white space) is the same task, told with 200 and
/// `Idempotency-Replayed: true`, for as long as the task is remembered. With SQLite each pod has its own keys, so a
/// repetition must reach the same pod; pods that share PostgreSQL share the keys.
#[utoipa::path(post, path = "/v1/tasks", operation_id = "submit_task", tag = "tasks",
    request_body(content = NewTaskBody, description = "The task; `{}` is one."),
    params(SubmissionHeaders),
    responses(
        (status = 202, description = "The task is accepted.", body = Task,
            headers(("Location" = String, description = "Where the task is: `/v1/tasks/{id}`.")),
            links(
                ("read" = (operation_id = "read_task", parameters(("id" = "$response.body#/id")))),
                ("cancel" = (operation_id = "cancel_task", parameters(("id" = "$response.body#/id")))),
                ("retry" = (operation_id = "retry_task", parameters(("id" = "$response.body#/id")))),
            )),
        (status = 200, description = "The key's task, which was there before.", body = Task,
            headers(
                ("Location" = String, description = "Where the task is: `/v1/tasks/{id}`."),
                ("Idempotency-Replayed" = String, description = "`true`"),
            )),
        (status = 400, description = "A field, or the body, can't be used; `field` names it.", body = ProblemBody),
        (status = 403, description = "This server may not do it: its flags say what it may, such as which targets it calls.", body = ProblemBody),
        (status = 409, description = "There is no such queue.", body = ProblemBody),
        limits::BodyRefused,
        Refused,
    ))]
pub(crate) async fn submit(
    State(api): State<Arc<Api>>,
    guard: RequestGuard,
    request: Request,
) -> Result<Response, Problem> {
    take(&api, &guard, request).await.inspect_err(|problem| api.metrics.refused(problem.refusal()))
}

async fn take(api: &Api, guard: &RequestGuard, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let key = limits::idempotency_key(&parts.headers)?;
    let (body, room) = limits::body(&api.rooms, &parts.headers, body).await?;
    if !body.is_empty() {
        limits::is_json(&parts.headers)?;
    }
    let now = Timestamp::now();
    let mut task = submission::read(&body, key, &api.defaults, now, |queue| api.queue.attempts(queue))?;
    drop(body);
    api.kinds.check(&task.kind, &task.input)?;
    // The queue keeps the task, the answer tells of it.
    let told = room.answer(serde_json::to_vec(&Task::new(&task, now)).unwrap_or_default());
    let id = task.id;
    let (span, parent) = trace::submission(&parts.headers, id, &task.kind);
    task.trace = parent.map(|parent| parent.to_string());
    match accept(api, task, guard).instrument(span).await? {
        None => Ok((StatusCode::ACCEPTED, location(id), [JSON], told).into_response()),
        Some(known) => {
            let room = api.rooms.task().await?;
            Ok(([(REPLAYED, TRUE)], location(known.id), [JSON], written(room, &Task::of(&known)))
                .into_response())
        }
    }
}

pub(crate) const JSON: (HeaderName, HeaderValue) =
    (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
pub(crate) const TRUE: HeaderValue = HeaderValue::from_static("true");

/// An answer in JSON, in the room that was taken for it.
pub(crate) fn written(room: Room, answer: &impl Serialize) -> Bytes {
    room.answer(serde_json::to_vec(answer).unwrap_or_default())
}

/// Where a task is.
fn location(id: Uuid) -> [(HeaderName, String); 1] {
    [(header::LOCATION, format!("/v1/tasks/{id}"))]
}

/// Puts a task into the queue. Some: its key's task, which was there before.
pub(crate) async fn accept(
    api: &Api,
    task: NewTask,
    guard: &RequestGuard,
) -> Result<Option<Box<TaskRecord>>, Problem> {
    let hint = api.hub.is_heard().then(|| Hint {
        task_id: task.id,
        kind: task.kind.clone(),
        client_id: task.client_id.clone(),
        what: What::Queued,
    });
    let queue = task.queue.clone();
    match limits::answer(api.queue.submit(task, guard)).await? {
        Submitted::New => {
            api.metrics.accepted();
            if let Some(hint) = hint {
                api.hub.hint(&hint);
            }
            Ok(None)
        }
        Submitted::Known(known) => Ok(Some(known)),
        Submitted::KeyReused { id } => Err(Problem::key_reused(id)),
        Submitted::NoQueue => Err(Problem::unknown_queue(&queue)),
    }
}

/// List tasks
///
/// The newest first; those that have ended until they are forgotten.
#[utoipa::path(get, path = "/v1/tasks", operation_id = "list_tasks", tag = "tasks",
    params(
        ("state" = Option<Vec<TaskState>>, Query, style = Form, explode = false, min_items = 1,
            description = "In one of these states, separated by commas; without it, in any."),
        ("kind" = Option<String>, Query, description = "Of this kind."),
        ("client_id" = Option<String>, Query, description = "Of this client.",
            min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+$"),
        ("queue" = Option<String>, Query, description = "Of this queue.", min_length = 1, max_length = 64, pattern = "^[a-z0-9_-]+$"),
        ("limit" = Option<u16>, Query, description = "At most so many; 50 without it. A page has fewer, or none, where tasks are large or few of many match: go by `next`.", minimum = 1, maximum = 100),
        ("cursor" = Option<Uuid>, Query, description = "The `next` of the page before."),
    ),
    responses(
        (status = 200, description = "A page of them.", body = TaskList,
            links(("next" = (operation_id = "list_tasks", parameters(("cursor" = "$response.body#/next")))))),
        (status = 400, description = "A parameter can't be used; `field` names it.", body = ProblemBody),
        (status = 503, description = "The queue is unavailable.", body = ProblemBody),
    ))]
pub(crate) async fn list(State(api): State<Arc<Api>>, listing: Listing) -> Result<Response, Problem> {
    let store = api.queue.store()?;
    let Listing { filter, after, limit } = listing;
    let room = api.rooms.list().await?;
    let page = limits::ask(&api.queue, store.list(&filter, after, limit)).await?;
    let tasks = page.tasks.iter().map(Task::of).collect();
    Ok(([JSON], written(room, &TaskList { tasks, next: page.next })).into_response())
}

/// Delete a task
///
/// One that has ended is forgotten before its time, with its attempts; the event of its end stays as long as events are kept.
#[utoipa::path(delete, path = "/v1/tasks/{id}", operation_id = "delete_task", tag = "tasks",
    params(("id" = Uuid, Path, description = "The task's id.")),
    responses(
        (status = 204, description = "It is forgotten."),
        (status = 404, description = "No such task is known here (any more).", body = ProblemBody),
        (status = 409, description = "It has not ended: cancel it first.", body = ProblemBody),
        (status = 503, description = "The queue is unavailable.", body = ProblemBody),
    ))]
pub(crate) async fn delete(State(api): State<Arc<Api>>, id: TaskId) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(|_| Problem::no_task())?;
    let store = api.queue.store()?;
    let changed = limits::ask(&api.queue, store.change(vec![id], Change::Delete, Hold::default())).await?;
    if changed.done > 0 {
        return Ok(StatusCode::NO_CONTENT);
    }
    let _room = api.rooms.task().await?;
    let task = limits::ask(&api.queue, store.get(id)).await?.ok_or(Problem::no_task())?;
    let state = task.state;
    Err(Problem::wrong_state(format!(
        "task {id} is {state}; only one that has ended can be deleted, so cancel it first"
    )))
}

/// Look at a task
///
/// With SQLite a pod knows the tasks it accepted and answers 404 for those of others; with PostgreSQL each pod knows
/// all.
#[utoipa::path(get, path = "/v1/tasks/{id}", operation_id = "read_task", tag = "tasks",
    params(("id" = Uuid, Path, description = "The task's id.")),
    responses(
        (status = 200, description = "The task.", body = Task),
        (status = 404, description = "No such task is known here (any more).", body = ProblemBody),
        (status = 503, description = "The queue is unavailable.", body = ProblemBody),
    ))]
pub(crate) async fn read(State(api): State<Arc<Api>>, id: TaskId) -> Result<Response, Problem> {
    let Path(id) = id.map_err(|_| Problem::no_task())?;
    let store = api.queue.store()?;
    let room = api.rooms.task().await?;
    let task = limits::ask(&api.queue, store.get(id)).await?.ok_or(Problem::no_task())?;
    Ok(([JSON], written(room, &Task::of(&task))).into_response())
}

/// Cancel a task
///
/// One that waits is cancelled at once (200). One that runs is asked to stop (202); how it ended is told by its state,
/// and by an event. Asking twice does no harm.
#[utoipa::path(post, path = "/v1/tasks/{id}/cancel", operation_id = "cancel_task", tag = "tasks",
    params(("id" = Uuid, Path, description = "The task's id.")),
    responses(
        (status = 200, description = "It is cancelled.", body = Task),
        (status = 202, description = "It runs, and is asked to stop.", body = Task),
        (status = 404, description = "No such task is known here (any more).", body = ProblemBody),
        (status = 409, description = "It had ended.", body = ProblemBody),
        (status = 503, description = "The queue is unavailable.", body = ProblemBody),
    ))]
pub(crate) async fn cancel(State(api): State<Arc<Api>>, id: TaskId) -> Result<Response, Problem> {
    let Path(id) = id.map_err(|_| Problem::no_task())?;
    let store = api.queue.store()?;
    let room = api.rooms.task().await?;
    match limits::ask(&api.queue, store.cancel(id)).await? {
        Cancelled::Now(task) => {
            api.metrics.finished(Ended::Cancelled);
            Ok(([JSON], written(room, &Task::of(&task))).into_response())
        }
        Cancelled::Asked(task) => {
            Ok((StatusCode::ACCEPTED, [JSON], written(room, &Task::of(&task))).into_response())
        }
        Cancelled::TooLate(task) => {
            let state = task.state;
            Err(Problem::wrong_state(format!("task {id} is {state}: it has ended and can't be cancelled")))
        }
        Cancelled::Unknown => Err(Problem::no_task()),
    }
}

/// Try a task again
///
/// One that is dead or cancelled is queued again, with all its attempts before it.
#[utoipa::path(post, path = "/v1/tasks/{id}/retry", operation_id = "retry_task", tag = "tasks",
    params(("id" = Uuid, Path, description = "The task's id.")),
    responses(
        (status = 202, description = "It is queued again.", body = Task),
        (status = 404, description = "No such task is known here (any more).", body = ProblemBody),
        (status = 409, description = "It is neither dead nor cancelled, or its queue was removed.", body = ProblemBody),
        (status = 503, description = "The pod drains, or the queue is unavailable.", body = ProblemBody),
    ))]
pub(crate) async fn retry(
    State(api): State<Arc<Api>>,
    guard: RequestGuard,
    id: TaskId,
) -> Result<Response, Problem> {
    let Path(id) = id.map_err(|_| Problem::no_task())?;
    let store = api.queue.store()?;
    let room = api.rooms.task().await?;
    match limits::ask(&api.queue, store.retry(id, Hold::new(guard))).await? {
        Retried::Now(task) => {
            Ok((StatusCode::ACCEPTED, [JSON], written(room, &Task::of(&task))).into_response())
        }
        Retried::NotEnded(task) => {
            let state = task.state;
            Err(Problem::wrong_state(format!(
                "task {id} is {state}; only a dead or cancelled task can be retried"
            )))
        }
        Retried::NoQueue(task) => {
            let queue = task.queue;
            Err(Problem::wrong_state(format!(
                "task {id} was of the queue `{queue}`, which was removed; PUT /v1/queues/{queue} makes it again"
            )))
        }
        Retried::Unknown => Err(Problem::no_task()),
    }
}
