//! How many there are, counted at most once a second, and whether there is room for one more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::query;
use tokio::time::Instant;

use super::database::{CALL_TIMEOUT, Database};
use super::record::{count, now};
use crate::error::StoreError;
use crate::task::Counts;

/// Counting reads the index of all that wait.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Census {
    database: Arc<Database>,
    /// Tasks that may wait.
    capacity: u64,
    latest: Mutex<Option<Counted>>,
    /// One count at a time; who comes meanwhile waits for it.
    counting: tokio::sync::Mutex<()>,
    /// Tasks handed in here so far, and not refused for want of room.
    begun: AtomicU64,
    /// Those of them that were written, or were not, and will not be.
    decided: AtomicU64,
}

/// A submission on its way; decided when dropped.
#[derive(Debug)]
pub(super) struct Begun(Arc<Census>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.decided.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    counts: Counts,
    at: Instant,
    /// Those decided before the counting began, so that it saw them.
    seen: u64,
}

impl Census {
    pub(super) fn new(database: Arc<Database>, capacity: u64) -> Self {
        Self {
            database,
            capacity,
            latest: Mutex::default(),
            counting: tokio::sync::Mutex::default(),
            begun: AtomicU64::default(),
            decided: AtomicU64::default(),
        }
    }

    pub(super) fn began(self: &Arc<Self>) -> Begun {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Begun(self.clone())
    }

    fn latest(&self) -> Option<Counted> {
        *self.latest.lock()
    }

    fn fresh(&self) -> Option<Counted> {
        self.latest().filter(|counted| counted.at.elapsed() < FRESH)
    }

    /// How many wait at most, as far as we know: those counted, and our own since.
    fn waiting(&self) -> u64 {
        let begun = self.begun.load(Ordering::Relaxed);
        self.latest().map_or(begun, |counted| {
            counted.counts.queued + counted.counts.delayed + begun.saturating_sub(counted.seen)
        })
    }

    pub(super) async fn counts(&self) -> Result<Counts, StoreError> {
        if let Some(fresh) = self.fresh() {
            return Ok(fresh.counts);
        }
        let _turn = self.counting.lock().await;
        if let Some(fresh) = self.fresh() {
            return Ok(fresh.counts);
        }
        let seen = self.decided.load(Ordering::Relaxed);
        let counts = self.database.within(CALL_TIMEOUT, self.count()).await?;
        let counted = Counted { counts, at: Instant::now(), seen };
        *self.latest.lock() = Some(counted);
        Ok(counts)
    }

    /// Not behind those who look: by it the queue is full, or not.
    async fn count(&self) -> sqlx::Result<Counts> {
        let mut lane = self.database.work.lane().await?;
        let row = query(concat!(
            "SELECT count(*) FILTER (WHERE due <= ",
            now!(),
            ") AS queued, count(*) FILTER (WHERE due > ",
            now!(),
            ") AS delayed, (SELECT count(*) FROM graceful_tasks WHERE state = 'running') AS running, \
             (SELECT count(*) FROM graceful_tasks WHERE state = 'dead') AS dead \
             FROM graceful_tasks WHERE state = 'queued'"
        ))
        .fetch_one(&mut *lane)
        .await?;
        lane.keep();
        Ok(Counts {
            queued: count(&row, "queued")?,
            delayed: count(&row, "delayed")?,
            running: count(&row, "running")?,
            dead: count(&row, "dead")?,
        })
    }

    /// Whether as many wait as may, by a count that is up to a second old. Nobody waits for a new one.
    pub(super) fn is_full(self: &Arc<Self>) -> bool {
        if self.fresh().is_none() && self.counting.try_lock().is_ok() {
            let census = self.clone();
            // If it fails, the next submission's own statement says why.
            tokio::spawn(async move { census.counts().await.ok() });
        }
        self.waiting() >= self.capacity
    }
}
