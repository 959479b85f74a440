//! What is done each second: orphans queued again, and what is past its time forgotten.

use sqlx::query;
use tokio::time::Instant;

use super::core::{Core, PATIENCE};
use super::record::{millis, now};
use crate::error::StoreError;

/// Rows deleted in one statement: some milliseconds' work.
const CHUNK: i64 = 1000;

/// Statements in one round; what is left waits for the next.
const ROUNDS: usize = 10;

impl Core {
    pub(super) async fn maintain(&self) -> Result<(), StoreError> {
        if let Some(clock) = self.pulse.may_judge(Instant::now()) {
            self.reap(clock).await?;
        }
        for _ in 0..ROUNDS {
            if self.within(PATIENCE, self.forget_tasks()).await? < CHUNK as u64 {
                break;
            }
        }
        for _ in 0..ROUNDS {
            if self.within(PATIENCE, self.forget_events()).await? < CHUNK as u64 {
                break;
            }
        }
        Ok(())
    }

    async fn forget_tasks(&self) -> sqlx::Result<u64> {
        let mut lane = self.work.lane().await?;
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
        let mut lane = self.work.lane().await?;
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
