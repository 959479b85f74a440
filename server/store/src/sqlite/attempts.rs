//! The attempts at a task: noted when another follows, read with the task.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::apply::Tables;
use super::fault::{Fault, first_write};
use super::row::{Standing, code};
use crate::attempts::{MOST, complete, short};
use crate::task::{Attempt, Millis, State, TaskRecord};

impl Tables<'_> {
    /// Notes the latest attempt, before the task's row forgets it. An attempt that was given back never was.
    pub(super) fn note(
        &self,
        id: Uuid,
        task: &Standing,
        ended: Millis,
        error: Option<&str>,
    ) -> Result<(), Fault> {
        self.connection
            .prepare_cached(
                "INSERT OR IGNORE INTO attempts (task, attempt, started, ended, pod, error)
                 SELECT id, attempt, started, ?2, pod, ?3 FROM tasks WHERE id = ?1 AND started IS NOT NULL",
            )?
            .execute(params![id.as_bytes(), ended, error.map(short)])
            .map_err(first_write)?;
        if let Some(last) = task.attempt.checked_sub(MOST) {
            self.connection
                .prepare_cached("DELETE FROM attempts WHERE task = ?1 AND attempt <= ?2")?
                .execute(params![id.as_bytes(), last])?;
        }
        Ok(())
    }

    /// When the task ended, and why if it is dead.
    pub(super) fn ended(&self, id: Uuid) -> Result<(Option<Millis>, Option<String>), Fault> {
        let found = self
            .connection
            .prepare_cached("SELECT ended, CASE state WHEN ?2 THEN error END FROM tasks WHERE id = ?1")?
            .query_row(params![id.as_bytes(), code(State::Dead)], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(found.unwrap_or_default())
    }
}

/// The attempts at this task that are remembered.
pub(super) fn read(connection: &Connection, task: &TaskRecord) -> rusqlite::Result<Vec<Attempt>> {
    if task.attempt == 0 {
        return Ok(Vec::new());
    }
    let noted = connection
        .prepare_cached(
            "SELECT attempt, pod, started, ended, error FROM attempts WHERE task = ?1 ORDER BY attempt",
        )?
        .query_map([task.id.as_bytes()], |row| {
            Ok(Attempt {
                number: row.get(0)?,
                pod: row.get(1)?,
                started: row.get(2)?,
                ended: row.get(3)?,
                error: row.get(4)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    let pod = connection
        .prepare_cached("SELECT pod FROM tasks WHERE id = ?1")?
        .query_row([task.id.as_bytes()], |row| row.get(0))?;
    Ok(complete(noted, task, pod))
}
