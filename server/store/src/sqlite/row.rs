//! Rows, and what they are in memory.

use rusqlite::Row;
use uuid::Uuid;

use super::clock::span;
use super::ledger::{Lane, Line, Place, Rank};
use crate::event::Event;
use crate::task::{Millis, State, TaskRecord};

/// What [`record`] reads.
pub(super) const RECORD: &str = "id, state, priority, attempt, max_attempts, cancel, created, due, started, ended, \
     timeout, kind, client, progress, error, output, \
     coalesce(input, (SELECT long.input FROM inputs AS long WHERE long.id = tasks.id)), queue, nullif(lane, '')";

/// Bytes of input that stay in the task's row: with it they fill a quarter of a page at most, which is where SQLite
/// begins to spread a row over several.
pub(super) const SHORT: usize = 512;

/// What [`Standing::read`] reads.
pub(super) const STANDING: &str = "state, priority, attempt, max_attempts, granted, cancel, due, keep, kind, client, interrupted, keep_dead, queue, lane";

/// What [`event`] reads.
pub(super) const EVENT: &str = "number, at, task, state, attempt, kind, client, error";

pub(super) const fn code(state: State) -> i64 {
    match state {
        State::Queued => 0,
        State::Running => 1,
        State::Succeeded => 2,
        State::Dead => 3,
        State::Cancelled => 4,
    }
}

fn state(row: &Row<'_>, column: usize) -> rusqlite::Result<State> {
    let found: i64 = row.get(column)?;
    State::ALL
        .into_iter()
        .find(|state| code(*state) == found)
        .ok_or(rusqlite::Error::IntegralValueOutOfRange(column, found))
}

pub(super) fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    row.get(column).map(Uuid::from_bytes)
}

/// The queue in this column, and the key in the next.
pub(super) fn lane(row: &Row<'_>, column: usize) -> rusqlite::Result<Lane> {
    let name = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    Ok(Lane::of(name(column)?, name(column + 1)?))
}

pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<TaskRecord> {
    Ok(TaskRecord {
        id: id(row, 0)?,
        state: state(row, 1)?,
        priority: row.get(2)?,
        attempt: row.get(3)?,
        max_attempts: row.get(4)?,
        cancel_requested: row.get(5)?,
        created: row.get(6)?,
        due: row.get(7)?,
        started: row.get(8)?,
        ended: row.get(9)?,
        timeout: row.get::<_, Option<Millis>>(10)?.map(span),
        kind: row.get(11)?,
        client_id: row.get(12)?,
        progress: row.get(13)?,
        error: row.get(14)?,
        output: row.get(15)?,
        input: row.get(16)?,
        queue: row.get(17)?,
        concurrency_key: row.get(18)?,
        attempts: None,
    })
}

/// As much of a task as decides what may become of it.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) state: State,
    pub(super) priority: i16,
    pub(super) attempt: u16,
    pub(super) max_attempts: u16,
    /// Attempts it was given as it was handed in, and is given again with each retry by hand.
    pub(super) granted: u16,
    pub(super) cancel_requested: bool,
    pub(super) due: Millis,
    pub(super) keep: Millis,
    pub(super) kind: String,
    pub(super) client_id: Option<String>,
    /// Processes that died while they ran it.
    pub(super) interrupted: u16,
    pub(super) keep_dead: Option<Millis>,
    pub(super) lane: Lane,
}

impl Standing {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            state: state(row, 0)?,
            priority: row.get(1)?,
            attempt: row.get(2)?,
            max_attempts: row.get(3)?,
            granted: row.get(4)?,
            cancel_requested: row.get(5)?,
            due: row.get(6)?,
            keep: row.get(7)?,
            kind: row.get(8)?,
            client_id: row.get(9)?,
            interrupted: row.get(10)?,
            keep_dead: row.get(11)?,
            lane: lane(row, 12)?,
        })
    }

    pub(super) fn line(&self) -> Line {
        Line { lane: self.lane.clone(), rank: Rank::of(self.priority, self.interrupted) }
    }

    pub(super) fn place(&self) -> Option<Place> {
        match self.state {
            State::Queued => Some(Place::Waiting { line: self.line(), due: self.due }),
            State::Running => Some(Place::Running(self.lane.clone())),
            State::Dead => Some(Place::Dead),
            State::Succeeded | State::Cancelled => None,
        }
    }
}

pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        number: row.get(0)?,
        at: row.get(1)?,
        task_id: id(row, 2)?,
        state: state(row, 3)?,
        attempt: row.get(4)?,
        kind: row.get(5)?,
        client_id: row.get(6)?,
        error: row.get(7)?,
    })
}
