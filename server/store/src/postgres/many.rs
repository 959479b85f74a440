//! The same done to many tasks, in one transaction: to each that it fits, and to the others nothing.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row, query};
use uuid::Uuid;

use super::attempts::note;
use super::change::Changes;
use super::database::CALL_TIMEOUT;
use super::ending::append;
use super::record::{ended, now, number};
use crate::error::StoreError;
use crate::task::{Change, Changed, Lease};

/// Those of the ids that are in these states, locked in their order.
macro_rules! locked {
    ($states:literal) => {
        concat!(
            "WITH mine AS MATERIALIZED ( SELECT id, attempt, started, ended, owner, state, error, queue FROM graceful_tasks WHERE id = ANY($1) \
             AND state IN (",
            $states,
            ") ORDER BY id FOR UPDATE )"
        )
    };
}

impl Changes {
    pub(super) async fn change(&self, ids: &[Uuid], change: Change) -> Result<Changed, StoreError> {
        let (changed, head, stop) = self
            .database
            .within(CALL_TIMEOUT, async {
                let mut lane = self.database.desk.lane().await?;
                let mut transaction = lane.begin().await?;
                let (mut head, mut stop) = (None, Vec::new());
                let changed = match change {
                    Change::Cancel => {
                        let (changed, grown) = cancel(&mut transaction, ids, &mut stop).await?;
                        head = grown;
                        changed
                    }
                    Change::Retry => retry(&mut transaction, ids).await?,
                    Change::Delete => delete(&mut transaction, ids).await?,
                };
                transaction.commit().await?;
                lane.keep();
                Ok((changed, head, stop))
            })
            .await?;
        if let Some(head) = head {
            self.signals.log_grew(head);
        }
        for attempt in stop {
            self.signals.cancel_requested(attempt);
        }
        if change == Change::Retry && changed.done > 0 {
            self.signals.something_waits();
        }
        Ok(changed)
    }
}

async fn cancel(
    connection: &mut PgConnection,
    ids: &[Uuid],
    stop: &mut Vec<Lease>,
) -> sqlx::Result<(Changed, Option<u64>)> {
    let asked = query(
        "UPDATE graceful_tasks SET cancel = true WHERE id = ANY(ARRAY( \
            SELECT id FROM graceful_tasks WHERE id = ANY($1) AND state IN ('queued', 'running') ORDER BY id FOR UPDATE \
         )) AND state = 'running' RETURNING id, attempt",
    );
    for row in asked.bind(ids).fetch_all(&mut *connection).await? {
        stop.push(Lease { id: row.try_get("id")?, attempt: number(&row, "attempt")? });
    }
    let cancelled = query(concat!(
        locked!("'queued'"),
        " UPDATE graceful_tasks t SET state = 'cancelled', owner = NULL, ended = ",
        now!(),
        ", forget = ",
        now!(),
        " + keep FROM mine WHERE t.id = mine.id RETURNING t.id, t.kind, t.client_id, t.state, t.attempt, t.error, t.ended"
    ));
    let rows = cancelled.bind(ids).fetch_all(&mut *connection).await?;
    let mut endings = Vec::with_capacity(rows.len());
    for row in &rows {
        endings.extend(ended(row)?);
    }
    let head = append(connection, &endings).await?;
    Ok((Changed { done: rows.len() as u64, asked: stop.len() as u64 }, head))
}

/// As [`Changes::retry`] does for one.
async fn retry(connection: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<Changed> {
    let queued = query(concat!(
        locked!("'dead', 'cancelled'"),
        ", here AS ( SELECT mine.* FROM mine JOIN graceful_queues q ON q.name = mine.queue ), ",
        note!(
            "id, attempt, started, ended, owner, CASE state WHEN 'dead' THEN error END FROM here \
             WHERE ended IS NOT NULL AND attempt > 0"
        ),
        " UPDATE graceful_tasks t SET state = 'queued', cancel = false, owner = NULL, due = ",
        now!(),
        ", max_attempts = least(t.attempt + t.granted, 65535), started = NULL, ended = NULL, forget = NULL, progress = NULL, \
         interrupted = 0 FROM here WHERE t.id = here.id"
    ));
    let done = queued.bind(ids).execute(connection).await?.rows_affected();
    Ok(Changed { done, asked: 0 })
}

async fn delete(connection: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<Changed> {
    let gone = query(concat!(
        locked!("'succeeded', 'dead', 'cancelled'"),
        " DELETE FROM graceful_tasks t USING mine WHERE t.id = mine.id"
    ));
    let done = gone.bind(ids).execute(connection).await?.rows_affected();
    Ok(Changed { done, asked: 0 })
}
