//! Many tasks cancelled, retried or deleted by a filter: found by the indexes of the list, and changed in one transaction.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use graceful_drain::RequestGuard;
use graceful_store::{Change, Changed, Cursor, Filter, Hold, State as TaskState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::fields::{Fields, Object};
use crate::api::tasks::{JSON, written};
use crate::api::view::TaskState as TaskStateWord;
use crate::api::{Api, limits, query, queue_name};
use crate::client_id;
use crate::metrics::Ended;
use crate::problem::{Problem, ProblemBody};

/// Tasks that one call changes: some milliseconds' work for the queue's writer.
const MOST_CHANGED: f64 = 1000.0;
/// Without a word on it.
const CHANGED: f64 = 500.0;
/// Tasks that one call counts: as many as it looks through.
const MOST_COUNTED: usize = 20_000;

/// Which tasks, and how many of them now.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BulkChange, example = json!({"filter": {"queue": "mail"}, "dry_run": true}))]
pub(crate) struct ChangeBody {
    /// Which.
    #[schema(value_type = FilterBody)]
    filter: Object<FilterBody>,
    /// Changes nothing: how many there are is told, up to 20,000 a call.
    #[serde(default)]
    dry_run: Option<bool>,
    /// Changes at most so many; 500 without it. A dry run does not look at it.
    #[serde(default)]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<f64>,
    /// The `next` of the call before.
    #[serde(default)]
    cursor: Option<Uuid>,
}

/// Each field, and what to write into it.
const FIELDS: Fields = Fields(&[
    ("filter", "write an object with at least one of state, kind, client_id and queue"),
    ("filter.state", "write states as a list of strings"),
    ("filter.kind", "write the name of a kind as a string"),
    ("filter.client_id", "write a client's name as a string"),
    ("filter.queue", "write the name of a queue as a string"),
    ("dry_run", "write true or false"),
    ("limit", "write a whole number from 1 to 1000"),
    ("cursor", "write the `next` of the call before, or leave it out"),
]);

/// All that is given has to be so, and something has to be given.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BulkFilter)]
pub(crate) struct FilterBody {
    /// In one of these states; without it, in any that this can be done to.
    #[schema(value_type = Option<Vec<TaskStateWord>>, min_items = 1)]
    state: Option<Vec<String>>,
    /// Of this kind.
    kind: Option<String>,
    /// Of this client.
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+$"
    )]
    client_id: Option<String>,
    /// Of this queue.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9_-]+$")]
    queue: Option<String>,
}

/// How many tasks there were, and what became of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BulkChanged)]
pub(crate) struct ChangedOut {
    /// Tasks that this call found.
    matched: u64,
    /// Those of them that it changed, or asked to stop. 0 in a dry run; fewer than were found where some had changed meanwhile.
    changed: u64,
    /// The `cursor` of the next call; null when all have been found.
    #[schema(required)]
    next: Option<Uuid>,
}

/// Cancel many tasks
///
/// What waits is cancelled; what runs is asked to stop. Which tasks is said by a filter. A call finds a bounded number of them, the
/// newest first, and says where the next one goes on. With `dry_run` it counts them and changes nothing.
#[utoipa::path(post, path = "/v1/bulk/cancel", operation_id = "bulk_cancel", tag = "bulk",
    request_body(content = ChangeBody, description = "Which tasks."),
    responses(
        (status = 200, description = "So many were.", body = ChangedOut),
        (status = 400, description = "A field, or the body, can't be used; `field` names it.", body = ProblemBody),
        limits::BodyRefused,
        (status = 503, description = "The queue is unavailable.", body = ProblemBody),
    ))]
pub(crate) async fn cancel(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Problem> {
    change(&api, Change::Cancel, Hold::default(), request).await
}

/// Retry many tasks
///
/// Those that are dead or cancelled are queued again, with all their attempts before them; those whose queue was removed are not.
/// Which tasks is said by a filter, as in `/v1/bulk/cancel`.
#[utoipa::path(post, path = "/v1/bulk/retry", operation_id = "bulk_retry", tag = "bulk",
    request_body(content = ChangeBody, description = "Which tasks."),
    responses(
        (status = 200, description = "So many were.", body = ChangedOut),
        (status = 400, description = "A field, or the body, can't be used; `field` names it.", body = ProblemBody),
        limits::BodyRefused,
        (status = 503, description = "The pod drains, or the queue is unavailable.", body = ProblemBody),
    ))]
pub(crate) async fn retry(
    State(api): State<Arc<Api>>,
    guard: RequestGuard,
    request: Request,
) -> Result<Response, Problem> {
    change(&api, Change::Retry, Hold::new(guard), request).await
}

/// Delete many tasks
///
/// Those that have ended are forgotten before their time. Which tasks is said by a filter, as in `/v1/bulk/cancel`.
#[utoipa::path(post, path = "/v1/bulk/delete", operation_id = "bulk_delete", tag = "bulk",
    request_body(content = ChangeBody, description = "Which tasks."),
    responses(
        (status = 200, description = "So many were.", body = ChangedOut),
        (status = 400, description = "A field, or the body, can't be used; `field` names it.", body = ProblemBody),
        limits::BodyRefused,
        (status = 503, description = "The queue is unavailable.", body = ProblemBody),
    ))]
pub(crate) async fn delete(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Problem> {
    change(&api, Change::Delete, Hold::default(), request).await
}

async fn change(api: &Api, change: Change, hold: Hold, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    query::none(&parts.uri)?;
    let (body, room) = limits::body(&api.rooms, &parts.headers, body).await?;
    limits::is_json(&parts.headers)?;
    let Asked { filter, limit, after } = Asked::read(&body, change)?;
    let store = api.queue.store()?;
    let found = limits::ask(&api.queue, store.find(&filter, after, limit.unwrap_or(MOST_COUNTED))).await?;
    let matched = found.ids.len() as u64;
    let Changed { done, asked } = match limit {
        Some(_) if matched > 0 => limits::ask(&api.queue, store.change(found.ids, change, hold)).await?,
        Some(_) | None => Changed::default(),
    };
    if change == Change::Cancel {
        (0..done).for_each(|_| api.metrics.finished(Ended::Cancelled));
    }
    let told = ChangedOut { matched, changed: done + asked, next: found.next };
    Ok(([JSON], written(room, &told)).into_response())
}

/// What a call is asked.
#[derive(Debug, PartialEq)]
struct Asked {
    filter: Filter,
    /// None: only counts.
    limit: Option<usize>,
    after: Option<Cursor>,
}

impl Asked {
    fn read(body: &[u8], change: Change) -> Result<Self, Problem> {
        const INSTEAD: &str = "write {\"filter\": {…}}, with dry_run, limit and cursor beside it";
        let mut json = serde_json::Deserializer::from_slice(body);
        let read: Result<Object<ChangeBody>, _> = serde_path_to_error::deserialize(&mut json);
        let Object(read) = read.map_err(|error| {
            let path = error.path().to_string();
            let said = error.into_inner().to_string();
            let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what);
            let field = path.split('[').next().unwrap_or_default();
            match FIELDS.instead(field).filter(|_| said.starts_with("invalid type") || field == "cursor") {
                Some(instead) => Problem::invalid(field.to_owned(), instead),
                None if matches!(field, "." | "?") => {
                    Problem::malformed(format!("the body: {said}; {INSTEAD}"))
                }
                // One that is unknown, or came twice.
                None => Problem::invalid(field.to_owned(), said),
            }
        })?;
        json.end().map_err(|error| Problem::malformed(format!("the body is not JSON: {error}")))?;
        let ChangeBody { filter: Object(filter), dry_run, limit, cursor } = read;
        let limit = limit.unwrap_or(CHANGED);
        if !(1.0..=MOST_CHANGED).contains(&limit) || limit.fract() != 0.0 {
            return Err(FIELDS.wanted("limit"));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and in range")]
        let limit = (!dry_run.unwrap_or(false)).then_some(limit as usize);
        Ok(Self { filter: filter.read(change)?, limit, after: cursor })
    }
}

impl FilterBody {
    fn read(self, change: Change) -> Result<Filter, Problem> {
        let Self { state, kind, client_id, queue } = self;
        if state.is_none() && kind.is_none() && client_id.is_none() && queue.is_none() {
            return Err(FIELDS.wanted("filter"));
        }
        if let Some(client) = &client_id {
            client_id::check(client).map_err(|instead| Problem::invalid("filter.client_id", instead))?;
        }
        if let Some(queue) = &queue {
            queue_name::check(queue).map_err(|instead| Problem::invalid("filter.queue", &instead))?;
        }
        Ok(Filter { states: states(state, change.fits())?, kind, client_id, queue })
    }
}

fn states(given: Option<Vec<String>>, fits: &[TaskState]) -> Result<Vec<TaskState>, Problem> {
    let Some(given) = given else { return Ok(fits.to_vec()) };
    let states: Option<Vec<TaskState>> =
        given.iter().map(|word| word.parse().ok().filter(|state| fits.contains(state))).collect();
    states.filter(|states| !states.is_empty()).ok_or_else(|| {
        let words = fits.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(", ");
        Problem::invalid("filter.state", &format!("write some of {words}, as a list"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str, change: Change) -> Result<Asked, String> {
        Asked::read(body.as_bytes(), change).map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn without_states_all_are_meant_that_it_can_be_done_to() {
        let of_mail = r#"{"filter": {"queue": "mail"}}"#;
        let asked = read(of_mail, Change::Cancel).unwrap();
        let states = vec![TaskState::Queued, TaskState::Running];
        let filter = Filter { states, queue: Some("mail".to_owned()), ..Filter::default() };
        assert_eq!(asked, Asked { filter, limit: Some(500), after: None });
        let retried = read(of_mail, Change::Retry).unwrap().filter.states;
        assert_eq!(retried, [TaskState::Dead, TaskState::Cancelled]);
        let dry = r#"{"filter": {"state": ["dead"]}, "dry_run": true}"#;
        assert_eq!(read(dry, Change::Delete).unwrap().limit, None);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_write() {
        for (body, said) in [
            ("{}", "missing field `filter`; write"),
            (r#"{"filter": {}}"#, "filter: write an object with at least one of state"),
            (r#"{"filter": [["dead"], null, null, null]}"#, "filter: write an object"),
            (r#"[{"queue": "mail"}, false, null, null]"#, "expected a JSON object; write"),
            (r#"{"filter": {"state": "dead"}}"#, "filter.state: write states as a list"),
            (r#"{"filter": {"state": [3]}}"#, "filter.state: write states as a list"),
            (r#"{"filter": {"kind": 5}}"#, "filter.kind: write the name"),
            (r#"{"filter": {"kind": "x"}, "dry_run": "yes"}"#, "dry_run: write true or false"),
            (r#"{"filter": {"kind": "x"}, "limit": "5"}"#, "limit: write a whole number"),
            (r#"{"filter": {"kind": "x", "kind": "y"}}"#, "filter: duplicate field `kind`"),
            (r#"{"filter": {"state": ["dead"]}}"#, "filter.state: write some of queued, running"),
            (r#"{"filter": {"state": []}}"#, "filter.state: write some of"),
            (r#"{"filter": {"quue": "mail"}}"#, "filter.quue: unknown field"),
            (r#"{"filter": {"queue": "No"}}"#, "filter.queue: write 1 to 64"),
            (r#"{"filter": {"kind": "x"}, "limit": 0}"#, "limit: write a whole number from 1 to 1000"),
            (r#"{"filter": {"kind": "x"}, "limit": 1.5}"#, "limit: write"),
            (r#"{"filter": {"kind": "x"}, "cursor": "x"}"#, "cursor: write the `next`"),
            (r#"{"filter": {"kind": "x"}, "cursor": 7}"#, "cursor: write the `next`"),
            (r#"{"filter": {"kind": "x"}} x"#, "the body is not JSON"),
        ] {
            let why = read(body, Change::Cancel).unwrap_err();
            assert!(why.contains(said), "{body}: {why}");
        }
    }
}
