//! Queues in the tables: their settings, and whether they are paused.

use std::num::NonZeroU32;

use rusqlite::{Connection, Row, params};

use super::apply::Tables;
use super::clock::{millis, span};
use super::fault::{Fault, first_write};
use super::ledger::{Bucket, Ledger};
use crate::queue::{Backoff, DEFAULT_QUEUE, MOST_QUEUES, QueuePut, QueueRemoved, QueueSettings, Rate};
use crate::task::Millis;

/// What [`settings`] reads.
const SETTINGS: &str = "concurrency, per_key, rate, burst, max_attempts, first_pause, longest_pause";

fn settings(row: &Row<'_>, at: usize) -> rusqlite::Result<QueueSettings> {
    let number = |column: usize| -> rusqlite::Result<Option<NonZeroU32>> {
        Ok(row.get::<_, Option<u32>>(at + column)?.and_then(NonZeroU32::new))
    };
    let rate = row.get::<_, Option<f64>>(at + 2)?.zip(number(3)?);
    let pauses = row.get::<_, Option<Millis>>(at + 5)?.zip(row.get::<_, Option<Millis>>(at + 6)?);
    Ok(QueueSettings {
        concurrency: number(0)?,
        per_key: number(1)?,
        rate: rate.map(|(per_second, burst)| Rate { per_second, burst }),
        max_attempts: row.get(at + 4)?,
        backoff: pauses.map(|(first, longest)| Backoff { first: span(first), longest: span(longest) }),
    })
}

/// All queues as they were written down. A bucket that was filled later than `now`, by a clock that was ahead, fills from now on.
pub(super) fn load(connection: &Connection, ledger: &mut Ledger, now: Millis) -> rusqlite::Result<()> {
    let mut all =
        connection.prepare(&format!("SELECT name, paused, tokens, filled, {SETTINGS} FROM queues"))?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        ledger.declare(&name, settings(row, 4)?);
        ledger.pause(&name, row.get(1)?);
        let bucket = row.get::<_, Option<f64>>(2)?.zip(row.get::<_, Option<Millis>>(3)?);
        ledger.fill(&name, bucket.map(|(tokens, at)| Bucket { tokens, at: at.min(now) }));
    }
    ledger.keep();
    Ok(())
}

impl Tables<'_> {
    pub(super) fn put_queue(&mut self, name: &str, settings: QueueSettings) -> Result<QueuePut, Fault> {
        let known = self.ledger.knows(name);
        if !known && self.ledger.known() >= MOST_QUEUES {
            return Ok(QueuePut::TooMany);
        }
        let QueueSettings { concurrency, per_key, rate, max_attempts, backoff } = settings;
        self.connection
            .prepare_cached(
                "INSERT INTO queues (name, concurrency, per_key, rate, burst, max_attempts, first_pause, longest_pause)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (name) DO UPDATE SET
                     concurrency = ?2, per_key = ?3, rate = ?4, burst = ?5, max_attempts = ?6, first_pause = ?7, longest_pause = ?8",
            )?
            .execute(params![
                name,
                concurrency.map(NonZeroU32::get),
                per_key.map(NonZeroU32::get),
                rate.map(|rate| rate.per_second),
                rate.map(|rate| rate.burst.get()),
                max_attempts,
                backoff.map(|backoff| millis(backoff.first)),
                backoff.map(|backoff| millis(backoff.longest)),
            ])
            .map_err(first_write)?;
        self.ledger.declare(name, settings);
        Ok(if known { QueuePut::Changed } else { QueuePut::New })
    }

    /// Whether there is such a queue.
    pub(super) fn pause_queue(&mut self, name: &str, paused: bool) -> Result<bool, Fault> {
        if !self.ledger.knows(name) {
            return Ok(false);
        }
        self.connection
            .prepare_cached("UPDATE queues SET paused = ?2 WHERE name = ?1")?
            .execute(params![name, paused])
            .map_err(first_write)?;
        self.ledger.pause(name, paused);
        Ok(true)
    }

    pub(super) fn remove_queue(&mut self, name: &str) -> Result<QueueRemoved, Fault> {
        if !self.ledger.knows(name) {
            return Ok(QueueRemoved::Unknown);
        }
        if name == DEFAULT_QUEUE || !self.ledger.is_empty(name) {
            return Ok(QueueRemoved::InUse);
        }
        self.connection
            .prepare_cached("DELETE FROM queues WHERE name = ?1")?
            .execute([name])
            .map_err(first_write)?;
        self.ledger.forget(name);
        Ok(QueueRemoved::Now)
    }
}

/// Lines that are stepped through. Clients choose keys and priorities, and may choose each another one: to read all that wait, one
/// after the other, is quicker than more steps than this.
const STEPS: usize = 100;

/// The first of each key and each priority: one step down the index for each, however many wait behind it. Where it is asked for by both
/// at once (`(lane, priority) > (…)`), SQLite reads the whole lane.
const FIRSTS: &str = "WITH RECURSIVE first (lane, priority, due) AS (
         SELECT * FROM (SELECT lane, priority, due FROM tasks INDEXED BY line
             WHERE state < 2 AND state = 0 AND queue = ?1 ORDER BY lane, priority, due LIMIT 1)
         UNION ALL
         SELECT next.lane, next.priority, next.due FROM first JOIN tasks AS next ON next.id = coalesce(
             (SELECT id FROM tasks INDEXED BY line WHERE state < 2 AND state = 0 AND queue = ?1
                 AND lane = first.lane AND priority > first.priority ORDER BY priority, due LIMIT 1),
             (SELECT id FROM tasks INDEXED BY line WHERE state < 2 AND state = 0 AND queue = ?1
                 AND lane > first.lane ORDER BY lane, priority, due LIMIT 1))
         LIMIT ?3
     )
     SELECT min(due) FILTER (WHERE due <= ?2), count(*) FROM first";

/// All that wait, as they are in the index.
const READ_ALL: &str =
    "SELECT min(due) FROM tasks INDEXED BY line WHERE state < 2 AND state = 0 AND queue = ?1 AND due <= ?2";

/// Since when the oldest of a queue's waiting tasks has been due, by `now`.
pub(super) fn oldest(connection: &Connection, queue: &str, now: Millis) -> rusqlite::Result<Option<Millis>> {
    let (oldest, lines): (Option<Millis>, usize) = connection
        .prepare_cached(FIRSTS)?
        .query_row(params![queue, now, STEPS], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if lines < STEPS {
        return Ok(oldest);
    }
    connection.prepare_cached(READ_ALL)?.query_row(params![queue, now], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;
    use crate::sqlite::schema;

    /// So many tasks wait, each in a lane and of a priority as these say of its number; the last is the oldest.
    fn waiting(tasks: i64, lane: &str, priority: &str) -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::create(&mut connection).unwrap();
        let fill = format!(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {tasks})
             INSERT INTO tasks (id, state, queue, lane, priority, due, attempt, max_attempts, granted, cancel, created, keep, kind)
             SELECT CAST(n AS BLOB), 0, 'q', {lane}, {priority}, 1000 + {tasks} - n, 0, 1, 0, 0, 0, 0, 'sleep' FROM n"
        );
        connection.execute_batch(&fill).unwrap();
        connection
    }

    /// What SQLite does for one look, in steps of its machine.
    fn work(connection: &Connection) -> i32 {
        let mut statement = connection.prepare(FIRSTS).unwrap();
        let _: Option<Millis> =
            statement.query_row(params!["q", Millis::MAX, STEPS], |row| row.get(0)).unwrap();
        statement.get_status(StatementStatus::VmStep)
    }

    #[test]
    fn the_oldest_is_found_whatever_keys_and_priorities_there_are() {
        for (lane, priority) in [("''", "0"), ("'t' || n", "0"), ("''", "n"), ("'t' || n % 9", "n % 7")] {
            let connection = waiting(3000, lane, priority);
            assert_eq!(oldest(&connection, "q", Millis::MAX).unwrap(), Some(1000), "{lane}, {priority}");
            assert_eq!(oldest(&connection, "q", 1000).unwrap(), Some(1000));
            assert_eq!(oldest(&connection, "q", 999).unwrap(), None, "none is due");
            assert_eq!(oldest(&connection, "other", Millis::MAX).unwrap(), None);
        }
    }

    #[test]
    fn a_look_for_the_oldest_reads_none_of_those_behind_the_first_of_a_line() {
        for priority in ["0", "n % 50"] {
            let (few, many) = (waiting(500, "''", priority), waiting(20_000, "''", priority));
            assert_eq!(work(&few), work(&many), "priority {priority}");
        }
        let (few, many) = (waiting(500, "'t' || n", "0"), waiting(20_000, "'t' || n", "0"));
        assert_eq!(work(&few), work(&many), "as many steps as it may take");
    }
}
