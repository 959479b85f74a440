//! What is done each second: orphans queued again, and what is past its time forgotten.

use std::sync::Arc;
use std::time::Duration;

use sqlx::query;
use tokio::time::Instant;

use super::database::{CALL_TIMEOUT, Database};
use super::lease::Leases;
use super::pulse::Pulse;
use super::record::{millis, now};
use crate::error::StoreError;

/// Rows deleted in one statement: some milliseconds' work.
const CHUNK: i64 = 1000;

/// How long to forget for in one round; what is left waits for the next. Orphans are not to wait for it.
const FORGETTING: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Tidy {
    pub(super) database: Arc<Database>,
    pub(super) leases: Arc<Leases>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) keep_events: Duration,
}

impl Tidy {
    pub(super) async fn maintain(&self) -> Result<(), StoreError> {
        if let Some(clock) = self.pulse.may_judge(Instant::now()) {
            self.leases.reap(clock).await?;
        }
        let end = Instant::now() + FORGETTING;
        let (mut tasks, mut events) = (true, true);
        while (tasks || events) && Instant::now() < end {
            tasks = tasks && self.database.within(CALL_TIMEOUT, self.forget_tasks()).await? == CHUNK as u64;
            events =
                events && self.database.within(CALL_TIMEOUT, self.forget_events()).await? == CHUNK as u64;
        }
        Ok(())
    }

    async fn forget_tasks(&self) -> sqlx::Result<u64> {
        let mut lane = self.database.work.lane().await?;
        let forgotten = query(concat!(
            "DELETE FROM graceful_tasks WHERE id IN ( \
                SELECT id FROM graceful_tasks WHERE forget <= ",
            now!(),
            " ORDER BY forget LIMIT $1 FOR UPDATE SKIP LOCKED)"
        ))
        .bind(CHUNK)
        .execute(&mut *lane)
        .await?;
        lane.keep();
        Ok(forgotten.rows_affected())
    }

    /// Only ever the lowest numbers, so that no gap comes about.
    async fn forget_events(&self) -> sqlx::Result<u64> {
        let mut lane = self.database.work.lane().await?;
        let forgotten = query(concat!(
            "DELETE FROM graceful_events WHERE number <= ( \
                SELECT max(number) FROM (SELECT number, at FROM graceful_events ORDER BY number LIMIT $1) AS oldest \
                WHERE at < ",
            now!(),
            " - $2)"
        ))
        .bind(CHUNK)
        .bind(millis(self.keep_events))
        .execute(&mut *lane)
        .await?;
        lane.keep();
        Ok(forgotten.rows_affected())
    }
}
