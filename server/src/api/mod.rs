//! The HTTP API.
//!
//! - [`tasks`]: `/v1/tasks`, from handing in to trying again; [`submission`] reads what is handed in, [`query`] what is
//!   asked, [`view`] shows a task
//! - [`bulk`]: `/v1/bulk`, the same for many tasks
//! - [`queues`]: `/v1/queues`, what tasks wait in
//! - [`overview`]: `/v1/queue`, its history, and `/v1/kinds`
//! - [`seed`]: the routes of the first clients, answer for answer
//! - [`limits`]: what a request may cost, and [`rooms`], what all may take up together
//! - [`visitors`]: what pages of other sites may do
//! - [`openapi`]: all of it, described
//!
//! What brings work is behind the drain's gate, method by method; reads, cancellation and health answer until the end.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use graceful_drain::Drain;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::events::{self, hub::Hub};
use crate::history::History;
use crate::kind::Kinds;
use crate::metrics::{Metrics, Refusal};
use crate::page;
use crate::problem::Problem;
use crate::queue::{Defaults, Queue};
use crate::tokens::Tokens;
use crate::tokens::door::{self, Doorkeeper};
use rooms::Rooms;
use visitors::{Porter, Visitors};

mod bulk;
mod fields;
pub mod limits;
mod openapi;
mod overview;
mod query;
mod queue_name;
mod queues;
pub mod rooms;
mod seed;
mod submission;
mod tasks;
mod view;
pub mod visitors;

pub use openapi::document;

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
    /// The sockets that listen to this pod.
    pub hub: Hub,
    /// How much there was to do.
    pub history: Arc<History>,
    /// What Prometheus is told.
    pub metrics: Arc<Metrics>,
    /// What requests may take up in memory.
    pub rooms: Arc<Rooms>,
    /// Whose pages may do what.
    pub visitors: Arc<Visitors>,
    /// Who may do what; None: everybody everything.
    pub tokens: Option<Arc<Tokens>>,
}

/// The public routes.
pub fn public(api: Api) -> Router {
    let (metrics, queue, drain) = (api.metrics.clone(), api.queue.clone(), api.drain.clone());
    let admitted = from_fn_with_state(porter(&api), visitors::admit);
    let measured = from_fn_with_state(api.metrics.clone(), measure);
    let keeper = Doorkeeper { tokens: api.tokens.clone(), metrics: api.metrics.clone() };
    let known = from_fn_with_state(keeper, door::admit);
    // Once, and shared by all answers: a copy for each who asks and takes nothing would add up.
    let description = Bytes::from(serde_json::to_vec(&document(&api.kinds)).unwrap_or_default());
    let describe = move || async move { ([(header::CONTENT_TYPE, "application/json")], description) };
    let gate = api.drain.gate_with(move || {
        metrics.refused(Refusal::Draining);
        Problem::bare(StatusCode::SERVICE_UNAVAILABLE, SHUTTING_DOWN).into_response()
    });
    let listening = events::routes(api.hub.clone(), gate.clone());
    let create = || post(seed::create_task).route_layer(gate.clone());
    Router::new()
        .route("/v1/tasks", post(tasks::submit).route_layer(gate.clone()).get(tasks::list))
        .route("/v1/tasks/{id}", get(tasks::read).delete(tasks::delete))
        .route("/v1/tasks/{id}/cancel", post(tasks::cancel))
        .route("/v1/tasks/{id}/retry", post(tasks::retry).route_layer(gate.clone()))
        .route("/v1/bulk/submit", post(bulk::submit).route_layer(gate.clone()))
        .route("/v1/bulk/cancel", post(bulk::cancel))
        .route("/v1/bulk/retry", post(bulk::retry).route_layer(gate.clone()))
        .route("/v1/bulk/delete", post(bulk::delete))
        .route("/v1/queues", get(queues::list))
        .route("/v1/queues/{name}", get(queues::read).put(queues::put).delete(queues::remove))
        .route("/v1/queues/{name}/pause", post(queues::pause))
        .route("/v1/queues/{name}/resume", post(queues::resume))
        .route("/v1/queue", get(overview::queue))
        .route("/v1/queue/history", get(overview::history))
        .route("/v1/kinds", get(overview::kinds))
        .route("/v1/create-task/", create())
        .route("/v1/create-task", create())
        .route("/v1/get_queue_length/", get(seed::queue_length))
        .route("/v1/get_queue_length", get(seed::queue_length))
        .route("/v1/health", get(seed::health))
        .with_state(Arc::new(api))
        .merge(listening)
        .route("/openapi.json", get(describe))
        .merge(SwaggerUi::new("/docs").config(Config::from("/openapi.json")))
        .merge(probes(queue, drain))
        .merge(page::routes())
        .fallback(|| async { Problem::bare(StatusCode::NOT_FOUND, "Not Found") })
        .method_not_allowed_fallback(|| async {
            Problem::bare(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
        .layer(known)
        .layer(admitted)
        .layer(measured)
}

/// How long a request waits for the head of its answer: a stream's does not end with it.
async fn measure(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = usual(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let answer = next.run(request).await;
    // A path that is none of ours is the client's own word.
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    metrics.answered(method, route, answer.status().as_u16(), begun.elapsed());
    answer
}

/// A method may be any word.
fn usual(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn porter(api: &Api) -> Porter {
    Porter { visitors: api.visitors.clone(), metrics: api.metrics.clone() }
}

/// The admin port's routes.
pub fn admin(api: &Api) -> Router {
    let (drain, metrics) = (api.drain.clone(), api.metrics.clone());
    let text = move || async move {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], metrics.text(&drain))
    };
    let admitted = from_fn_with_state(porter(api), visitors::admit);
    api.drain
        .routes()
        .merge(probes(api.queue.clone(), api.drain.clone()))
        .route("/metrics", get(text))
        .layer(admitted)
}

/// Ready once the queue was open, and from then on. Both are 200 in the operator's drains: a pod that drains lives, and one that
/// turned unready would be the first that its ReplicaSet kills. It is the operator that takes it out of the Service. A pod that drains by itself, after
/// SIGTERM or in its preStop hook, is not ready: nobody takes it out where only its container is started anew.
fn probes(queue: Arc<Queue>, drain: Drain) -> Router {
    let ready = move || async move {
        match (queue.ready(), drain.leaves()) {
            (true, false) => (StatusCode::OK, "ok\n"),
            (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "the queue is not open yet\n"),
            (true, true) => (StatusCode::SERVICE_UNAVAILABLE, "the process drains before its end\n"),
        }
    };
    Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(ready))
}
