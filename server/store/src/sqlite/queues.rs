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

/// Since when the oldest of a queue's waiting tasks has been due, by `now`. Of each key and each priority the first is looked at, which
/// the line has in its order: one step down the index for each, however many wait behind it.
pub(super) fn oldest(connection: &Connection, queue: &str, now: Millis) -> rusqlite::Result<Option<Millis>> {
    connection
        .prepare_cached(
            "WITH RECURSIVE first (lane, priority, due) AS (
                 SELECT * FROM (SELECT lane, priority, due FROM tasks INDEXED BY line
                     WHERE state < 2 AND state = 0 AND queue = ?1 ORDER BY lane, priority, due LIMIT 1)
                 UNION ALL
                 SELECT next.lane, next.priority, next.due FROM first JOIN tasks AS next ON next.id = (
                     SELECT id FROM tasks INDEXED BY line WHERE state < 2 AND state = 0 AND queue = ?1
                         AND (lane, priority) > (first.lane, first.priority) ORDER BY lane, priority, due LIMIT 1)
             )
             SELECT min(due) FROM first WHERE due <= ?2",
        )?
        .query_row(params![queue, now], |row| row.get(0))
}
