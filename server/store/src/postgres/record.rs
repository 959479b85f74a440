//! Rows, and what they are in memory.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::event::Event;
use crate::task::{Millis, State, TaskRecord};

/// The server's clock in milliseconds, as of the statement's begin.
macro_rules! now {
    () => {
        "(date_part('epoch', statement_timestamp()) * 1000)::bigint"
    };
}

/// The server's clock in milliseconds, as of this moment: leases end on it, since their statement may have waited for a lock.
macro_rules! clock {
    () => {
        "(date_part('epoch', clock_timestamp()) * 1000)::bigint"
    };
}

/// What [`record`] reads.
macro_rules! record_columns {
    () => {
        "id, kind, state, client_id, priority, attempt, max_attempts, timeout, input, output, progress, error, \
         created, due, started, ended, cancel, queue, nullif(lane, '') AS concurrency_key"
    };
}

pub(super) use {clock, now, record_columns};

pub(super) fn record(row: &PgRow) -> sqlx::Result<TaskRecord> {
    Ok(TaskRecord {
        id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        state: state(row, "state")?,
        client_id: row.try_get("client_id")?,
        queue: row.try_get("queue")?,
        concurrency_key: row.try_get("concurrency_key")?,
        priority: row.try_get("priority")?,
        attempt: number(row, "attempt")?,
        max_attempts: number(row, "max_attempts")?,
        timeout: row.try_get::<Option<Millis>, _>("timeout")?.map(span),
        input: row.try_get("input")?,
        output: row.try_get("output")?,
        progress: row.try_get("progress")?,
        error: row.try_get("error")?,
        created: row.try_get("created")?,
        due: row.try_get("due")?,
        started: row.try_get("started")?,
        ended: row.try_get("ended")?,
        cancel_requested: row.try_get("cancel")?,
        attempts: None,
    })
}

pub(super) fn event(row: &PgRow) -> sqlx::Result<Event> {
    Ok(Event {
        number: count(row, "number")?,
        task_id: row.try_get("task_id")?,
        kind: row.try_get("kind")?,
        client_id: row.try_get("client_id")?,
        state: state(row, "state")?,
        attempt: number(row, "attempt")?,
        error: row.try_get("error")?,
        at: row.try_get("at")?,
    })
}

/// A task that has just ended: an event without its number.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) task_id: Uuid,
    pub(super) kind: String,
    pub(super) client_id: Option<String>,
    pub(super) state: State,
    pub(super) attempt: i32,
    /// Only of those that are dead.
    pub(super) error: Option<String>,
    pub(super) at: Millis,
}

/// Reads what the statements that end tasks return: `id, kind, client_id, state, attempt, error, ended`. None for a
/// task that is queued again.
pub(super) fn ended(row: &PgRow) -> sqlx::Result<Option<Ended>> {
    let state = state(row, "state")?;
    if !state.ended() {
        return Ok(None);
    }
    Ok(Some(Ended {
        task_id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        client_id: row.try_get("client_id")?,
        state,
        attempt: row.try_get("attempt")?,
        error: row.try_get::<Option<String>, _>("error")?.filter(|_| state == State::Dead),
        at: row.try_get("ended")?,
    }))
}

pub(super) fn state(row: &PgRow, column: &str) -> sqlx::Result<State> {
    row.try_get::<&str, _>(column)?.parse().map_err(|error: String| sqlx::Error::Decode(error.into()))
}

/// Attempts: `integer` in the table, since SQL has no unsigned numbers.
pub(super) fn number(row: &PgRow, column: &str) -> sqlx::Result<u16> {
    u16::try_from(row.try_get::<i32, _>(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// What never is negative.
pub(super) fn count(row: &PgRow, column: &str) -> sqlx::Result<u64> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

pub(super) fn span(millis: Millis) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// At most 30,000 years, so that a sum with the time of day stays within a `bigint`.
pub(super) fn millis(span: Duration) -> Millis {
    const MOST: Millis = 1_000_000_000_000_000;
    Millis::try_from(span.as_millis()).unwrap_or(MOST).min(MOST)
}

/// PostgreSQL's text has no NUL. One bad byte would fail a whole batch, so it becomes the sign for such.
pub(super) fn text(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{FFFD}") } else { text }
}
