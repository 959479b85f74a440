//! Many tasks handed in together.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use graceful_drain::RequestGuard;
use graceful_store::{NewTask, StoreError, Submitted};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tracing::Instrument;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::fields::Object;
use crate::api::submission::{self, NewTaskBody, SubmissionHeaders};
use crate::api::tasks::{JSON, written};
use crate::api::{Api, limits};
use crate::events::hint::{Hint, What};
use crate::problem::{Problem, ProblemBody};
use crate::trace;

/// Tasks in one submission: more gain nothing, and would hold the queue's writer up for others.
const MOST_TASKS: usize = 100;

/// Tasks to do.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BulkTasks)]
pub(crate) struct TasksBody<'a> {
    /// Each as `POST /v1/tasks` takes it.
    #[serde(borrow)]
    #[schema(value_type = Vec<NewTaskBody<'static>>, min_items = 1, max_items = 100)]
    tasks: Vec<&'a RawValue>,
}

/// What became of each task.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BulkSubmitted)]
pub(crate) struct SubmittedOut {
    /// In the order of the request.
    tasks: Vec<OneSubmitted>,
}

/// What became of one task.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OneSubmitted {
    /// As `POST /v1/tasks` would have answered: 202, it is accepted; 200, it was there before; else it is none.
    #[schema(minimum = 200, maximum = 599, example = 202)]
    status: u16,
    /// The task's id, where there is one.
    #[schema(required)]
    id: Option<Uuid>,
    /// Why it was not taken.
    #[schema(required)]
    detail: Option<String>,
}

/// Hand in many tasks
///
/// Up to a hundred, in 256 KiB together. They are checked together: one that can't be used is named (`tasks[3].priority`), and none is
/// taken. Then each is taken by itself, so that a queue that is nearly full takes some of them. With an `Idempotency-Key`, the task in
/// place n (from 0) has the key `<key>/<n>`: the same request repeated is the same tasks.
#[utoipa::path(post, path = "/v1/bulk/submit", operation_id = "bulk_submit", tag = "bulk",
    request_body(content = TasksBody<'static>, description = "The tasks."),
    params(SubmissionHeaders),
    responses(
        (status = 202, description = "All are accepted, or were there before.", body = SubmittedOut),
        (status = 207, description = "Some are, and some are not.", body = SubmittedOut),
        (status = 400, description = "A field, or the body, can't be used; `field` names it. Or none was taken, for this reason.", body = ProblemBody),
        (status = 403, description = "This server may not do it: its flags say what it may, such as which targets it calls.", body = ProblemBody),
        (status = 409, description = "There is no such queue, and none was taken.", body = ProblemBody),
        limits::BodyRefused,
        submission::Refused,
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
    limits::is_json(&parts.headers)?;
    let mut tasks = read(api, &body, key.as_deref())?;
    drop(body);
    let first = tasks.first().map(|task| task.id).unwrap_or_default();
    let (span, parent) = trace::submission(&parts.headers, first, "bulk");
    for task in &mut tasks {
        task.trace = parent.map(|parent| parent.to_string());
    }
    let named: Vec<_> = tasks.iter().map(Named::of).collect();
    let submitted = limits::answer(api.queue.submit_many(tasks, guard)).instrument(span).await?;
    let (status, told) = answer(api, named, submitted)?;
    Ok((status, [JSON], written(room, &told)).into_response())
}

/// All or none: what is wrong is said before any of them is taken.
fn read(api: &Api, body: &[u8], key: Option<&str>) -> Result<Vec<NewTask>, Problem> {
    let Object(TasksBody { tasks }) = serde_json::from_slice(body).map_err(|error| {
        let instead = format!("write {{\"tasks\": [{{…}}, …]}} with up to {MOST_TASKS} of them");
        Problem::malformed(format!("the body: {error}; {instead}"))
    })?;
    if !(1..=MOST_TASKS).contains(&tasks.len()) {
        let instead = format!("write 1 to {MOST_TASKS} tasks; hand in more in several requests");
        return Err(Problem::invalid("tasks", &instead));
    }
    let now = Timestamp::now();
    let each = tasks.iter().enumerate().map(|(place, raw)| {
        let key = key.map(|key| format!("{key}/{place}"));
        let attempts = |queue: &str| api.queue.attempts(queue);
        let read = submission::read(raw.get().as_bytes(), key, &api.defaults, now, attempts);
        let checked = read.and_then(|task| {
            api.kinds.check(&task.kind, &task.input)?;
            Ok(task)
        });
        checked.map_err(|problem| problem.of_part(&format!("tasks[{place}]")))
    });
    each.collect()
}

/// As much of a task as is told of it once the queue has it.
struct Named {
    id: Uuid,
    kind: String,
    client_id: Option<String>,
    queue: String,
}

impl Named {
    fn of(task: &NewTask) -> Self {
        let (kind, client_id, queue) = (task.kind.clone(), task.client_id.clone(), task.queue.clone());
        Self { id: task.id, kind, client_id, queue }
    }
}

/// What is told of each; the trouble itself where none was taken.
fn answer(
    api: &Api,
    named: Vec<Named>,
    submitted: Vec<Result<Submitted, StoreError>>,
) -> Result<(StatusCode, SubmittedOut), Problem> {
    let mut tasks = Vec::with_capacity(named.len());
    let (mut trouble, mut taken) = (None, false);
    for (task, submitted) in named.into_iter().zip(submitted) {
        match one(api, task, submitted) {
            Ok(one) => {
                taken = true;
                tasks.push(one);
            }
            Err(problem) => {
                let (status, detail) = problem.said();
                tasks.push(OneSubmitted { status, id: None, detail: Some(detail.to_owned()) });
                trouble.get_or_insert(problem);
            }
        }
    }
    match trouble {
        None => Ok((StatusCode::ACCEPTED, SubmittedOut { tasks })),
        Some(problem) if !taken => Err(problem),
        Some(problem) => {
            api.metrics.refused(problem.refusal());
            Ok((StatusCode::MULTI_STATUS, SubmittedOut { tasks }))
        }
    }
}

fn one(api: &Api, task: Named, submitted: Result<Submitted, StoreError>) -> Result<OneSubmitted, Problem> {
    let Named { id, kind, client_id, queue } = task;
    match submitted? {
        Submitted::New => {
            api.metrics.accepted();
            if api.hub.is_heard() {
                api.hub.hint(&Hint { task_id: id, kind, client_id, what: What::Queued });
            }
            Ok(OneSubmitted { status: StatusCode::ACCEPTED.as_u16(), id: Some(id), detail: None })
        }
        Submitted::Known(known) => {
            Ok(OneSubmitted { status: StatusCode::OK.as_u16(), id: Some(known.id), detail: None })
        }
        Submitted::KeyReused { id } => Err(Problem::key_reused(id)),
        Submitted::NoQueue => Err(Problem::unknown_queue(&queue)),
    }
}
