//! The public API: the seed's routes, answer for answer, and its description.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use graceful_drain::{Drain, InFlight, RequestGuard, State as DrainState};
use graceful_store::{State as TaskState, StoreError};
use serde::Serialize;
use serde_json::json;
use utoipa::{OpenApi, ToSchema};
use utoipa_swagger_ui::SwaggerUi;
use uuid::Uuid;

use crate::events::{self, hub::Hub};
use crate::kind::{Kind, Kinds};
use crate::metrics::{Metrics, Refusal};
use crate::page;
use crate::queue::{Defaults, Queue, processed};
use crate::sleep::Sleep;

const SHUTTING_DOWN: &str = "Service Under Graceful Shutdown";

/// What the routes share.
#[derive(Debug, Clone)]
pub struct Api {
    /// The drain of this process.
    pub drain: Drain,
    /// The durable queue.
    pub queue: Arc<Queue>,
    /// What can be run.
    pub kinds: Arc<Kinds>,
    /// What a submission gets that does not say otherwise.
    pub defaults: Defaults,
    /// Those who listen to this pod.
    pub hub: Hub,
    /// What Prometheus is told.
    pub metrics: Arc<Metrics>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Graceful task server",
        description = "Hand it a task over HTTP, watch it over a WebSocket.\n\n\
            With the SQLite engine the queue is held by the pod that accepted the task, and a pod answers 404 for a \
            task it does not hold: behind a Service, ask again or watch `/ws/{client_id}`, which tells of every task \
            of its pod. With PostgreSQL each pod knows all tasks.\n\n\
            While a pod drains it finishes what it accepted, and answers new tasks with 503 and `Retry-After`."
    ),
    paths(create_task, read_task, queue_length, health)
)]
struct Document;

/// The OpenAPI document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The public routes. What brings work is behind the drain's gate; reads and health answer until the end.
pub fn public(api: Api) -> Router {
    let metrics = api.metrics.clone();
    let gate = api.drain.gate_with(move || {
        metrics.refused(Refusal::Draining);
        detail(StatusCode::SERVICE_UNAVAILABLE, SHUTTING_DOWN)
    });
    let work = Router::new()
        .route("/v1/create-task/", routing::post(create_task))
        .route("/v1/create-task", routing::post(create_task))
        .route_layer(gate.clone());
    let reads = Router::new()
        .route("/v1/tasks/{id}", routing::get(read_task))
        .route("/v1/get_queue_length/", routing::get(queue_length))
        .route("/v1/get_queue_length", routing::get(queue_length))
        .route("/v1/health", routing::get(health));
    let listening = events::routes(api.hub.clone(), gate);
    let queue = api.queue.clone();
    work.merge(reads)
        .with_state(api)
        .merge(listening)
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document()))
        .merge(probes(queue))
        .merge(page::routes())
        .fallback(|| async { detail(StatusCode::NOT_FOUND, "Not Found") })
        .method_not_allowed_fallback(|| async {
            detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
}

/// The admin port's routes.
pub fn admin(api: &Api) -> Router {
    let (drain, metrics, queue) = (api.drain.clone(), api.metrics.clone(), api.queue.clone());
    let text = move || async move {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], metrics.text(&drain, queue.counts().await.ok()))
    };
    api.drain.routes().merge(probes(api.queue.clone())).route("/metrics", routing::get(text))
}

/// Ready once the queue was open, and from then on. Both are 200 while draining: a pod that drains lives, and one that turned unready would be the first that its
/// ReplicaSet kills. It is the operator that takes it out of the Service.
fn probes(queue: Arc<Queue>) -> Router {
    let ready = move || async move {
        if queue.ready() {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the queue is not open yet\n")
        }
    };
    Router::new().route("/livez", routing::get(|| async { "ok\n" })).route("/readyz", routing::get(ready))
}

fn detail(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({"detail": text}))).into_response()
}

/// A task that was accepted.
#[derive(Debug, Serialize, ToSchema)]
struct TaskAccepted {
    /// `Task <id> Queued`.
    message: String,
    /// The task's id.
    task_id: Uuid,
}

/// A task, queued or processed.
#[derive(Debug, Serialize, ToSchema)]
struct TaskOut {
    /// The task's id.
    task_id: Uuid,
    /// `Task <id> queued`, later `Task <id> processed`.
    message: String,
}

/// How much there is to do.
#[derive(Debug, Serialize, ToSchema)]
struct QueueOut {
    /// Tasks that wait or run: of this pod, and those that wait in the queue it shares.
    task_lenth: u64,
}

/// Why not.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "describes an answer in the document; the answer itself is made by `detail`")]
struct Detail {
    /// What is wrong.
    detail: String,
}

/// Whether new tasks are welcome.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok`, or that the pod drains.
    status: &'static str,
}

/// Hand over a task. No body is needed.
#[utoipa::path(post, path = "/v1/create-task/", responses(
    (status = 200, description = "The task is queued and will be done.", body = TaskAccepted),
    (status = 429, description = "The queue is full; `Retry-After` says when to try again.", body = Detail),
    (status = 503, description = "The pod drains; `Retry-After` says when to try again.", body = Detail),
))]
async fn create_task(State(api): State<Api>, request: RequestGuard) -> Response {
    let task = api.defaults.task(Sleep::NAME, "{}".to_owned());
    let task_id = task.id;
    match api.queue.submit(task, &request).await {
        Ok(_) => {
            api.metrics.accepted();
            Json(TaskAccepted { message: format!("Task {task_id} Queued"), task_id }).into_response()
        }
        Err(error) => refused(&api, &error),
    }
}

fn refused(api: &Api, error: &StoreError) -> Response {
    match error {
        StoreError::Full => {
            api.metrics.refused(Refusal::Full);
            let busy = detail(StatusCode::TOO_MANY_REQUESTS, "The queue is full");
            ([(header::RETRY_AFTER, "1")], busy).into_response()
        }
        StoreError::Unavailable { .. } => {
            api.metrics.refused(Refusal::Unavailable);
            unavailable()
        }
    }
}

fn unavailable() -> Response {
    let away = detail(StatusCode::SERVICE_UNAVAILABLE, "The queue is unavailable");
    ([(header::RETRY_AFTER, "1")], away).into_response()
}

/// What became of a task. A pod knows the tasks it accepted, and of the finished ones the latest.
#[utoipa::path(get, path = "/v1/tasks/{id}", params(("id" = String, Path, description = "The task's id.")), responses(
    (status = 200, description = "The task.", body = TaskOut),
    (status = 404, description = "This pod does not hold the task.", body = Detail),
))]
async fn read_task(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let Ok(task_id) = id.parse::<Uuid>() else { return detail(StatusCode::NOT_FOUND, "Task not found") };
    let found = match api.queue.store() {
        Ok(store) => store.get(task_id).await,
        Err(closed) => Err(closed),
    };
    let state = match found {
        Ok(Some(record)) => record.state,
        Ok(None) => return detail(StatusCode::NOT_FOUND, "Task not found"),
        Err(_) => return unavailable(),
    };
    let message = match state {
        TaskState::Queued | TaskState::Running => format!("Task {task_id} queued"),
        TaskState::Succeeded => processed(task_id),
        TaskState::Dead | TaskState::Cancelled => format!("Task {task_id} {state}"),
    };
    Json(TaskOut { task_id, message }).into_response()
}

/// How many tasks wait or run. (The name of the field is what the first clients were given.)
#[utoipa::path(get, path = "/v1/get_queue_length/", responses(
    (status = 200, description = "The count.", body = QueueOut),
))]
async fn queue_length(State(api): State<Api>) -> Json<QueueOut> {
    let InFlight { queued, running, requests: _ } = api.drain.status().in_flight;
    let shared = api.drain.status().shared.map_or(0, |shared| shared.queued);
    Json(QueueOut { task_lenth: queued + running + shared })
}

/// Whether new tasks are welcome. Not for a liveness probe: it fails while the pod drains.
#[utoipa::path(get, path = "/v1/health", responses(
    (status = 200, description = "They are.", body = Health),
    (status = 503, description = "The pod drains.", body = Health),
))]
async fn health(State(api): State<Api>) -> Response {
    match api.drain.status().state {
        DrainState::Serving => Json(Health { status: "ok" }).into_response(),
        DrainState::Lingering | DrainState::Draining | DrainState::Idle | DrainState::Terminating => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: SHUTTING_DOWN })).into_response()
        }
    }
}
