//! How deep the queue is: how many tasks wait, counted at most once a second, and whether there is room for one more.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::{Row, query};
use tokio::time::Instant;

use super::database::{CALL_TIMEOUT, Database};
use super::record::{count, now, span};
use crate::error::StoreError;
use crate::page::FEW;
use crate::queue::QueueCounts;
use crate::task::{Counts, Millis};

/// Counting reads the index of all that wait.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct QueueDepth {
    database: Arc<Database>,
    /// Tasks that may wait.
    capacity: u64,
    latest: Mutex<Option<Measured>>,
    /// One count at a time; who comes meanwhile waits for it.
    one_count: tokio::sync::Mutex<()>,
    /// Tasks handed in here so far, and not refused for want of room.
    begun: AtomicU64,
    /// Those of them that were written, or were not, and will not be.
    decided: AtomicU64,
}

/// A submission on its way; decided when dropped.
#[derive(Debug)]
pub(super) struct Begun(Arc<QueueDepth>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.decided.fetch_add(1, Ordering::Relaxed);
    }
}

type ByQueue = HashMap<String, QueueCounts>;

#[derive(Debug, Clone)]
struct Measured {
    counts: Counts,
    by_queue: Arc<ByQueue>,
    at: Instant,
    /// Those decided before the counting began, so that it saw them.
    seen: u64,
}

impl QueueDepth {
    pub(super) fn new(database: Arc<Database>, capacity: u64) -> Self {
        Self {
            database,
            capacity,
            latest: Mutex::default(),
            one_count: tokio::sync::Mutex::default(),
            begun: AtomicU64::default(),
            decided: AtomicU64::default(),
        }
    }

    pub(super) fn began(self: &Arc<Self>) -> Begun {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Begun(self.clone())
    }

    fn latest(&self) -> Option<Measured> {
        self.latest.lock().clone()
    }

    fn fresh(&self) -> Option<Measured> {
        self.latest().filter(|measured| measured.at.elapsed() < FRESH)
    }

    /// How many wait at most, as far as we know: those counted, and our own since.
    fn waiting(&self) -> u64 {
        let begun = self.begun.load(Ordering::Relaxed);
        self.latest().map_or(begun, |measured| {
            measured.counts.queued + measured.counts.delayed + begun.saturating_sub(measured.seen)
        })
    }

    /// Whether the tasks that wait or run are few enough to be sorted, as far as we know.
    pub(super) fn few_live(&self) -> bool {
        self.latest()
            .is_some_and(|Measured { counts, .. }| counts.queued + counts.delayed + counts.running < FEW)
    }

    pub(super) async fn counts(&self) -> Result<Counts, StoreError> {
        Ok(self.measured().await?.counts)
    }

    /// What is in each queue.
    pub(super) async fn by_queue(&self) -> Result<Arc<ByQueue>, StoreError> {
        Ok(self.measured().await?.by_queue)
    }

    async fn measured(&self) -> Result<Measured, StoreError> {
        if let Some(fresh) = self.fresh() {
            return Ok(fresh);
        }
        let _turn = self.one_count.lock().await;
        if let Some(fresh) = self.fresh() {
            return Ok(fresh);
        }
        let seen = self.decided.load(Ordering::Relaxed);
        let (counts, by_queue) = self.database.within(CALL_TIMEOUT, self.count()).await?;
        let measured = Measured { counts, by_queue, at: Instant::now(), seen };
        *self.latest.lock() = Some(measured.clone());
        Ok(measured)
    }

    /// Not behind those who look: by it the queue is full, or not.
    async fn count(&self) -> sqlx::Result<(Counts, Arc<ByQueue>)> {
        let mut lane = self.database.work.lane().await?;
        let rows = query(concat!(
            "SELECT queue, count(*) FILTER (WHERE due <= ",
            now!(),
            ") AS queued, count(*) FILTER (WHERE due > ",
            now!(),
            ") AS delayed, ",
            now!(),
            " - min(due) AS oldest, 0::bigint AS running, 0::bigint AS dead FROM graceful_tasks WHERE state = 'queued' GROUP BY queue \
             UNION ALL SELECT queue, 0, 0, NULL, count(*), 0 FROM graceful_tasks WHERE state = 'running' GROUP BY queue \
             UNION ALL SELECT '', 0, 0, NULL, 0, count(*) FROM graceful_tasks WHERE state = 'dead'"
        ))
        .fetch_all(&mut *lane)
        .await?;
        lane.keep();
        let mut counts = Counts::default();
        let mut by_queue = ByQueue::new();
        for row in &rows {
            let (queued, delayed) = (count(row, "queued")?, count(row, "delayed")?);
            let running = count(row, "running")?;
            counts.queued += queued;
            counts.delayed += delayed;
            counts.running += running;
            counts.dead += count(row, "dead")?;
            let queue = by_queue.entry(row.try_get("queue")?).or_default();
            queue.queued += queued;
            queue.delayed += delayed;
            queue.running += running;
            let oldest = row.try_get::<Option<Millis>, _>("oldest")?.filter(|_| queued > 0);
            queue.oldest = queue.oldest.max(oldest.map(span));
        }
        Ok((counts, Arc::new(by_queue)))
    }

    /// Whether as many wait as may, by a count that is up to a second old. Nobody waits for a new one.
    pub(super) fn is_full(self: &Arc<Self>) -> bool {
        if self.fresh().is_none() && self.one_count.try_lock().is_ok() {
            let depth = self.clone();
            // If it fails, the next submission's own statement says why.
            tokio::spawn(async move { depth.counts().await.ok() });
        }
        self.waiting() >= self.capacity
    }
}
