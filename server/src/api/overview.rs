//! `/v1/queue`, `/v1/queue/history` and `/v1/kinds`: how much there is to do, how much there was, and what can be done here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use graceful_store::Counts;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::tasks::{JSON, written};
use crate::api::{Api, limits};
use crate::history;
use crate::problem::{Problem, ProblemBody};

/// How much there is to do.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueueCounts {
    /// Tasks that wait and could start.
    queued: u64,
    /// Tasks that wait for their time, or for their next attempt.
    delayed: u64,
    /// Tasks that run.
    running: u64,
    /// Dead letters that are remembered.
    dead: u64,
    /// Whether pods share this queue (PostgreSQL), or each has its own (SQLite).
    shared: bool,
}

/// How much there was to do.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueueHistory {
    /// Seconds between samples.
    every_seconds: u64,
    /// The oldest first, at most an hour of them.
    samples: Vec<QueueSample>,
}

/// The queue at a moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueueSample {
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    queued: u64,
    delayed: u64,
    running: u64,
    dead: u64,
    /// Tasks that have ended since the sample before, however they ended; null where that is not known.
    ended: Option<u64>,
}

impl From<history::Sample> for QueueSample {
    fn from(sample: history::Sample) -> Self {
        let history::Sample { at, counts: Counts { queued, delayed, running, dead }, ended } = sample;
        Self { at, queued, delayed, running, dead, ended }
    }
}

/// What can be done here.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KindList {
    /// By name.
    kinds: Vec<KindOut>,
}

/// A kind of task.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Kind)]
pub(crate) struct KindOut {
    /// What to write as a task's `kind`.
    #[schema(example = "sleep")]
    name: String,
    /// JSON Schema of its `input`; true where any input may do.
    #[schema(value_type = Value)]
    input: serde_json::Value,
}

/// How much there is to do
///
/// In the whole queue: with PostgreSQL that of all pods, with SQLite this pod's. Up to a second old.
#[utoipa::path(get, path = "/v1/queue", operation_id = "queue_counts", tag = "queue", responses(
    (status = 200, description = "The counts.", body = QueueCounts),
    (status = 503, description = "The queue is unavailable.", body = ProblemBody),
))]
pub(crate) async fn queue(State(api): State<Arc<Api>>) -> Result<Json<QueueCounts>, Problem> {
    let store = api.queue.store()?;
    let Counts { queued, delayed, running, dead } = limits::ask(&api.queue, store.counts()).await?;
    Ok(Json(QueueCounts { queued, delayed, running, dead, shared: store.shared() }))
}

/// How much there was to do
///
/// Over the last hour, since this pod began: a sample every ten seconds, kept in memory.
#[utoipa::path(get, path = "/v1/queue/history", operation_id = "queue_history", tag = "queue", responses(
    (status = 200, description = "The samples.", body = QueueHistory),
    (status = 503, description = "Too many answers are being written just now.", body = ProblemBody),
))]
pub(crate) async fn history(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let room = api.rooms.list().await?;
    let samples = api.history.samples().into_iter().map(QueueSample::from).collect();
    let history = QueueHistory { every_seconds: history::EVERY.as_secs(), samples };
    Ok(([JSON], written(room, &history)).into_response())
}

/// What can be done here
#[utoipa::path(get, path = "/v1/kinds", operation_id = "list_kinds", tag = "queue", responses(
    (status = 200, description = "The kinds of task that this server runs.", body = KindList),
))]
pub(crate) async fn kinds(State(api): State<Arc<Api>>) -> Json<KindList> {
    let kinds = api.kinds.schemas().map(|(name, input)| KindOut { name: name.to_owned(), input }).collect();
    Json(KindList { kinds })
}
