//! What people ask of a task: to stop, or to be tried again.

use std::sync::Arc;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, query};
use uuid::Uuid;

use super::attempts::note;
use super::database::{CALL_TIMEOUT, Database};
use super::ending::append;
use super::record::{Ended, now, record, record_columns};
use super::signals::Signals;
use crate::error::StoreError;
use crate::task::{Cancelled, Lease, Retried, State, TaskRecord};

/// Cancels and retries.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) database: Arc<Database>,
    pub(super) signals: Arc<Signals>,
}

impl Changes {
    pub(super) async fn cancel(&self, id: Uuid) -> Result<Cancelled, StoreError> {
        let (cancelled, head) = self.database.within(CALL_TIMEOUT, self.cancel_or_ask(id)).await?;
        if let Some(head) = head {
            self.signals.log_grew(head);
        }
        if let Cancelled::Asked(task) = &cancelled {
            self.signals.cancel_requested(Lease { id, attempt: task.attempt });
        }
        Ok(cancelled)
    }

    async fn cancel_or_ask(&self, id: Uuid) -> sqlx::Result<(Cancelled, Option<u64>)> {
        let mut lane = self.database.desk.lane().await?;
        let mut transaction = lane.begin().await?;
        let Some(found) = look_and_lock(&mut transaction, id).await? else {
            transaction.rollback().await?;
            lane.keep();
            return Ok((Cancelled::Unknown, None));
        };
        let (cancelled, head) = match found.state {
            State::Queued => {
                let task = query(concat!(
                    "UPDATE graceful_tasks SET state = 'cancelled', owner = NULL, ended = ",
                    now!(),
                    ", forget = ",
                    now!(),
                    " + keep WHERE id = $1 RETURNING ",
                    record_columns!()
                ));
                let task = record(&task.bind(id).fetch_one(&mut *transaction).await?)?;
                let head = append(&mut transaction, &[event_of(&task)]).await?;
                (Cancelled::Now(Box::new(task)), head)
            }
            State::Running => {
                let task = query(concat!(
                    "UPDATE graceful_tasks SET cancel = true WHERE id = $1 RETURNING ",
                    record_columns!()
                ));
                let task = record(&task.bind(id).fetch_one(&mut *transaction).await?)?;
                (Cancelled::Asked(Box::new(task)), None)
            }
            State::Succeeded | State::Dead | State::Cancelled => (Cancelled::TooLate(Box::new(found)), None),
        };
        transaction.commit().await?;
        lane.keep();
        Ok((cancelled, head))
    }

    pub(super) async fn retry(&self, id: Uuid) -> Result<Retried, StoreError> {
        let retried = self.database.within(CALL_TIMEOUT, self.queue_again(id)).await?;
        if matches!(retried, Retried::Now(_)) {
            self.signals.something_waits();
        }
        Ok(retried)
    }

    /// The attempt number goes on, for it fences; the allowance grows by what the task was handed in with.
    async fn queue_again(&self, id: Uuid) -> sqlx::Result<Retried> {
        let mut lane = self.database.desk.lane().await?;
        let mut transaction = lane.begin().await?;
        let retried = match look_and_lock(&mut transaction, id).await? {
            None => Retried::Unknown,
            Some(found) if !matches!(found.state, State::Dead | State::Cancelled) => {
                Retried::NotEnded(Box::new(found))
            }
            Some(found) if !queue_is_there(&mut transaction, &found.queue).await? => {
                Retried::NoQueue(Box::new(found))
            }
            Some(_) => {
                // One that was cancelled as it waited has its last attempt noted already.
                let noted = query(concat!(
                    "WITH ",
                    note!(
                        "id, attempt, started, ended, owner, CASE state WHEN 'dead' THEN error END FROM graceful_tasks \
                         WHERE id = $1 AND ended IS NOT NULL AND attempt > 0"
                    ),
                    " SELECT"
                ));
                noted.bind(id).execute(&mut *transaction).await?;
                let task = query(concat!(
                    "UPDATE graceful_tasks SET state = 'queued', cancel = false, owner = NULL, due = ",
                    now!(),
                    ", max_attempts = least(attempt + granted, 65535), started = NULL, ended = NULL, forget = NULL, \
                     progress = NULL, interrupted = 0 WHERE id = $1 RETURNING ",
                    record_columns!()
                ));
                Retried::Now(Box::new(record(&task.bind(id).fetch_one(&mut *transaction).await?)?))
            }
        };
        transaction.commit().await?;
        lane.keep();
        Ok(retried)
    }
}

/// Whether there is such a queue; it then stays until the transaction's end.
async fn queue_is_there(connection: &mut PgConnection, name: &str) -> sqlx::Result<bool> {
    let found = query("SELECT FROM graceful_queues WHERE name = $1 FOR KEY SHARE").bind(name);
    Ok(found.fetch_optional(connection).await?.is_some())
}

/// As it is, and as it stays until the transaction's end.
async fn look_and_lock(connection: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<TaskRecord>> {
    let found = query(concat!("SELECT ", record_columns!(), " FROM graceful_tasks WHERE id = $1 FOR UPDATE"));
    found.bind(id).fetch_optional(connection).await?.as_ref().map(record).transpose()
}

fn event_of(task: &TaskRecord) -> Ended {
    Ended {
        task_id: task.id,
        kind: task.kind.clone(),
        client_id: task.client_id.clone(),
        state: task.state,
        attempt: i32::from(task.attempt),
        error: None,
        at: task.ended.unwrap_or_default(),
    }
}
