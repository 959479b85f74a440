//! Queues in the tables: their settings, whether they are paused, and what of that this process knows without asking.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row, query};
use tokio::time::timeout;

use super::database::{CALL_TIMEOUT, Database};
use super::record::{millis, span};
use super::signals::Signals;
use crate::error::StoreError;
use crate::queue::{Backoff, DEFAULT_QUEUE, MOST_QUEUES, QueuePut, QueueRemoved, QueueSettings, Rate};
use crate::task::Millis;

/// How often to read them without having been told to: a hint may be lost.
const AGAIN: Duration = Duration::from_secs(1);

/// All who write wait behind who waits to lock the table: one who can't have it soon comes again later.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '300ms'";

/// What [`settings`] reads.
macro_rules! settings_columns {
    () => {
        "name, paused, concurrency, per_key, rate, burst, max_attempts, first_pause, longest_pause"
    };
}

pub(super) use settings_columns;

/// A queue as it was declared.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Declared {
    pub(super) settings: QueueSettings,
    pub(super) paused: bool,
}

/// All queues as this process heard of them last: others change them too, and a hint may be lost, so they are read each second.
#[derive(Debug, Default)]
pub(super) struct Known {
    all: RwLock<Arc<BTreeMap<String, Declared>>>,
    /// One reading at a time: of two, the one that saw the older might else be told last.
    reading: tokio::sync::Mutex<()>,
}

impl Known {
    pub(super) fn all(&self) -> Arc<BTreeMap<String, Declared>> {
        self.all.read().clone()
    }

    pub(super) fn settings(&self, name: &str) -> Option<QueueSettings> {
        self.all.read().get(name).map(|queue| queue.settings)
    }

    /// Whether an end in this queue may let another task of it begin.
    pub(super) fn has_places(&self, name: &str) -> bool {
        self.settings(name).is_some_and(|queue| queue.concurrency.is_some() || queue.per_key.is_some())
    }

    pub(super) async fn read(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let _turn = self.reading.lock().await;
        let rows = query(concat!("SELECT ", settings_columns!(), " FROM graceful_queues"));
        let rows = rows.fetch_all(connection).await?;
        let mut all = BTreeMap::new();
        for row in &rows {
            all.insert(
                row.try_get("name")?,
                Declared { settings: settings(row)?, paused: row.try_get("paused")? },
            );
        }
        *self.all.write() = Arc::new(all);
        Ok(())
    }
}

pub(super) fn settings(row: &PgRow) -> sqlx::Result<QueueSettings> {
    let number = |column| -> sqlx::Result<Option<NonZeroU32>> {
        let number: Option<i32> = row.try_get(column)?;
        Ok(number.and_then(|number| u32::try_from(number).ok()).and_then(NonZeroU32::new))
    };
    let rate = row.try_get::<Option<f64>, _>("rate")?.zip(number("burst")?);
    let pauses = row
        .try_get::<Option<Millis>, _>("first_pause")?
        .zip(row.try_get::<Option<Millis>, _>("longest_pause")?);
    Ok(QueueSettings {
        concurrency: number("concurrency")?,
        per_key: number("per_key")?,
        rate: rate.map(|(per_second, burst)| Rate { per_second, burst }),
        max_attempts: number("max_attempts")?.and_then(|most| u16::try_from(most.get()).ok()),
        backoff: pauses.map(|(first, longest)| Backoff { first: span(first), longest: span(longest) }),
    })
}

/// Changes queues.
#[derive(Debug)]
pub(super) struct Queues {
    pub(super) database: Arc<Database>,
    pub(super) signals: Arc<Signals>,
    pub(super) known: Arc<Known>,
}

impl Queues {
    pub(super) async fn put(&self, name: &str, settings: QueueSettings) -> Result<QueuePut, StoreError> {
        self.change(async |connection| {
            let new: Option<bool> = sqlx::query_scalar(
                "INSERT INTO graceful_queues (name, concurrency, per_key, rate, burst, max_attempts, first_pause, longest_pause) \
                 SELECT $1, $2, $3, $4, $5, $6, $7, $8 \
                 WHERE EXISTS (SELECT FROM graceful_queues WHERE name = $1) OR (SELECT count(*) FROM graceful_queues) < $9 \
                 ON CONFLICT (name) DO UPDATE SET concurrency = $2, per_key = $3, rate = $4, burst = $5, max_attempts = $6, \
                 first_pause = $7, longest_pause = $8, tokens = CASE WHEN $4 IS NULL THEN NULL ELSE graceful_queues.tokens END \
                 RETURNING xmax = 0",
            )
            .bind(name)
            .bind(settings.concurrency.map(column))
            .bind(settings.per_key.map(column))
            .bind(settings.rate.map(|rate| rate.per_second))
            .bind(settings.rate.map(|rate| column(rate.burst)))
            .bind(settings.max_attempts.map(i32::from))
            .bind(settings.backoff.map(|backoff| millis(backoff.first)))
            .bind(settings.backoff.map(|backoff| millis(backoff.longest)))
            .bind(MOST_QUEUES as i64)
            .fetch_optional(connection)
            .await?;
            Ok(match new {
                None => QueuePut::TooMany,
                Some(true) => QueuePut::New,
                Some(false) => QueuePut::Changed,
            })
        })
        .await
    }

    /// Whether there is such a queue.
    pub(super) async fn pause(&self, name: &str, paused: bool) -> Result<bool, StoreError> {
        self.change(async |connection| {
            let done =
                query("UPDATE graceful_queues SET paused = $2 WHERE name = $1").bind(name).bind(paused);
            Ok(done.execute(connection).await?.rows_affected() > 0)
        })
        .await
    }

    pub(super) async fn remove(&self, name: &str) -> Result<QueueRemoved, StoreError> {
        if name == DEFAULT_QUEUE {
            return Ok(QueueRemoved::InUse);
        }
        self.change(async |connection| {
            let mut transaction = connection.begin().await?;
            let gone = query("DELETE FROM graceful_queues WHERE name = $1").bind(name);
            if gone.execute(&mut *transaction).await?.rows_affected() == 0 {
                transaction.rollback().await?;
                return Ok(QueueRemoved::Unknown);
            }
            // A submission that saw the queue and is not committed yet is waited for, so that its task is seen here; those that come
            // now wait, and then see no queue.
            query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
            query("LOCK TABLE graceful_tasks IN SHARE MODE").execute(&mut *transaction).await?;
            let used: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM graceful_tasks WHERE state = 'queued' AND queue = $1) \
                 OR EXISTS (SELECT FROM graceful_tasks WHERE state = 'running' AND queue = $1)",
            )
            .bind(name)
            .fetch_one(&mut *transaction)
            .await?;
            if used {
                transaction.rollback().await?;
                return Ok(QueueRemoved::InUse);
            }
            transaction.commit().await?;
            Ok(QueueRemoved::Now)
        })
        .await
    }

    /// Changes something, and tells of it: a claim that waits may have something now.
    async fn change<T>(
        &self,
        change: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T, StoreError> {
        let done = self
            .database
            .within(CALL_TIMEOUT, async {
                let mut lane = self.database.desk.lane().await?;
                let done = change(&mut lane).await?;
                self.known.read(&mut lane).await?;
                lane.keep();
                Ok(done)
            })
            .await?;
        self.signals.queues_changed();
        Ok(done)
    }

    /// Reads them again: another process has changed one, or enough time has passed.
    pub(super) async fn refresh(&self) -> Result<(), StoreError> {
        self.database
            .within(CALL_TIMEOUT, async {
                let mut lane = self.database.desk.lane().await?;
                self.known.read(&mut lane).await?;
                lane.keep();
                Ok(())
            })
            .await
    }
}

/// Reads the queues each second, and at once when another process has changed one, until the store is dropped.
pub(super) async fn keep_up(queues: Arc<Queues>) {
    let mut hinted = queues.signals.queues();
    loop {
        // Their sender lives as long as `queues`.
        let changed = timeout(AGAIN, hinted.changed()).await.is_ok();
        // If it fails, those that are known still hold; that the database is away is said by others.
        if queues.refresh().await.is_ok() && changed {
            queues.signals.look_for_work();
        }
    }
}

/// As the table has it: SQL has no unsigned numbers.
fn column(number: NonZeroU32) -> i32 {
    i32::try_from(number.get()).unwrap_or(i32::MAX)
}
