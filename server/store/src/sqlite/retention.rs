//! Forgetting: ended tasks past their time, and old events.

use rusqlite::{OptionalExtension, params};
use uuid::Uuid;

use super::apply::Tables;
use super::fault::Fault;
use super::ledger::Place;
use super::row::{code, id};
use crate::task::{Millis, State};

/// So many rows at a time: a few milliseconds, so that no submission waits long for it.
const CHUNK: usize = 500;

impl Tables<'_> {
    /// Forgets a chunk of each; whether there may be more.
    pub(super) fn forget(&mut self, keep_events: Millis) -> Result<bool, Fault> {
        let tasks = self.forget_tasks()?;
        let events = self.forget_events(self.now.saturating_sub(keep_events))?;
        Ok(tasks == CHUNK || events == CHUNK)
    }

    fn forget_tasks(&mut self) -> Result<usize, Fault> {
        // An attempt is noted when another is to follow: the first of a task that was cancelled instead, too.
        let past = self
            .connection
            .prepare_cached(
                "SELECT id, state, input IS NULL, attempt > 1 OR (attempt = 1 AND state = ?3) FROM tasks INDEXED BY past WHERE forget IS NOT NULL AND forget <= ?1
                 ORDER BY forget LIMIT ?2",
            )?
            .query_map(params![self.now, CHUNK as i64, code(State::Cancelled)], |row| {
                Ok((id(row, 0)?, row.get::<_, i64>(1)?, row.get::<_, bool>(2)?, row.get::<_, bool>(3)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        for (id, state, long, again) in &past {
            self.forget_task(*id, *state == code(State::Dead), *long, *again)?;
        }
        Ok(past.len())
    }

    /// Forgets a task that has ended; `long`, its input is kept apart, and `again`, it was tried more than once.
    pub(super) fn forget_task(&mut self, id: Uuid, dead: bool, long: bool, again: bool) -> Result<(), Fault> {
        if long {
            self.connection.prepare_cached("DELETE FROM inputs WHERE id = ?1")?.execute([id.as_bytes()])?;
        }
        if again {
            self.connection
                .prepare_cached("DELETE FROM attempts WHERE task = ?1")?
                .execute([id.as_bytes()])?;
        }
        self.connection.prepare_cached("DELETE FROM tasks WHERE id = ?1")?.execute([id.as_bytes()])?;
        self.ledger.step(dead.then_some(Place::Dead), None);
        Ok(())
    }

    /// The latest event stays: the next one's number comes from it.
    fn forget_events(&mut self, before: Millis) -> Result<usize, Fault> {
        let last = self
            .connection
            .prepare_cached(
                "SELECT max(number) FROM (SELECT number, at FROM events ORDER BY number LIMIT ?1)
                 WHERE at < ?2 AND number < ?3",
            )?
            .query_row(params![CHUNK as i64, before, *self.head], |row| row.get::<_, Option<u64>>(0))
            .optional()?
            .flatten();
        let Some(last) = last else { return Ok(0) };
        let forgotten =
            self.connection.prepare_cached("DELETE FROM events WHERE number <= ?1")?.execute([last])?;
        Ok(forgotten)
    }
}
