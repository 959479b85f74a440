//! Leases that run: renewed, reported on, and taken from those who are silent.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection, Row, query};
use tracing::info;
use uuid::Uuid;

use super::attempts::{note, trim};
use super::database::{CALL_TIMEOUT, Database};
use super::ending::append;
use super::record::{clock, ended, millis, number, state, text};
use super::running::Running;
use super::signals::Signals;
use crate::LettersWatch;
use crate::error::StoreError;
use crate::interruption;
use crate::task::{Held, Lease, Millis, State};

/// A task whose owner was silent for so long is anybody's.
pub(super) const LEASE: Duration = Duration::from_secs(6);

/// Three chances in each lease.
pub(super) const RENEW: Duration = Duration::from_secs(2);

/// A renewal that takes longer is sent again on a new connection: there are two more chances in a lease.
const RENEW_TIMEOUT: Duration = Duration::from_secs(3);

/// Orphans taken in one transaction.
const REAPED: i64 = 500;

#[derive(Debug)]
pub(super) struct Leases {
    pub(super) database: Arc<Database>,
    pub(super) signals: Arc<Signals>,
    pub(super) running: Arc<Running>,
    pub(super) owner: String,
    /// How long dead letters are kept whose task does not say.
    pub(super) keep_dead: Duration,
    pub(super) max_interruptions: u16,
    pub(super) letters: Letters,
}

/// What became of the tasks of those who are silent.
struct Reaped {
    /// Some wait again.
    again: bool,
    /// The kinds of those that are dead letters now.
    letters: Vec<String>,
    head: Option<u64>,
}

/// Who is told of dead letters that are made here.
pub(super) struct Letters(pub(super) LettersWatch);

impl fmt::Debug for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Letters")
    }
}

impl Leases {
    pub(super) async fn renew(&self, leases: &[Lease]) -> Result<Vec<Held>, StoreError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        self.running.tend(leases);
        let held = self.database.within(RENEW_TIMEOUT, self.renew_all(leases)).await?;
        let answer = |lease: &Lease| match held.get(lease) {
            None => {
                self.running.ended(*lease);
                Held::Lost
            }
            Some(false) => Held::Yes,
            Some(true) => Held::CancelRequested,
        };
        Ok(leases.iter().map(answer).collect())
    }

    /// Those that are still ours, and whether they shall stop. A lease that has run out and that nobody has reaped is
    /// still ours.
    async fn renew_all(&self, leases: &[Lease]) -> sqlx::Result<HashMap<Lease, bool>> {
        let mut lane = self.database.work.lane().await?;
        let rows = query(concat!(
            "WITH mine AS MATERIALIZED ( \
                SELECT t.id FROM graceful_tasks t \
                JOIN UNNEST($1::uuid[], $2::integer[]) AS i (id, attempt) ON t.id = i.id AND t.attempt = i.attempt \
                WHERE t.state = 'running' AND t.owner = $3 ORDER BY t.id FOR UPDATE OF t \
             ) UPDATE graceful_tasks t SET lease_until = ",
            clock!(),
            " + $4 FROM mine WHERE t.id = mine.id AND t.state = 'running' RETURNING t.id, t.attempt, t.cancel"
        ))
        .bind(leases.iter().map(|lease| lease.id).collect::<Vec<_>>())
        .bind(leases.iter().map(|lease| i32::from(lease.attempt)).collect::<Vec<_>>())
        .bind(&self.owner)
        .bind(millis(LEASE))
        .fetch_all(&mut *lane)
        .await?;
        lane.keep();
        let held = |row| -> sqlx::Result<_> {
            let row: &sqlx::postgres::PgRow = row;
            Ok((Lease { id: row.try_get("id")?, attempt: number(row, "attempt")? }, row.try_get("cancel")?))
        };
        rows.iter().map(held).collect()
    }

    pub(super) async fn progress(&self, lease: Lease, progress: String) -> Result<Held, StoreError> {
        let cancel: Option<bool> = self
            .database
            .within(CALL_TIMEOUT, async {
                let mut lane = self.database.desk.lane().await?;
                let cancel = sqlx::query_scalar(
                    "UPDATE graceful_tasks SET progress = $4 \
                     WHERE id = $1 AND attempt = $2 AND owner = $3 AND state = 'running' RETURNING cancel",
                )
                .bind(lease.id)
                .bind(i32::from(lease.attempt))
                .bind(&self.owner)
                .bind(text(progress))
                .fetch_optional(&mut *lane)
                .await?;
                lane.keep();
                Ok(cancel)
            })
            .await?;
        Ok(match cancel {
            None => {
                self.running.ended(lease);
                Held::Lost
            }
            Some(false) => Held::Yes,
            Some(true) => Held::CancelRequested,
        })
    }

    /// Queues again what was leased until before `then`, or ends it when no attempt is left.
    ///
    /// `then` is the server's time as a probe saw it, not the time at which this statement runs: one that hung in a
    /// server that stood still would else find all leases over, before their owners can renew them.
    pub(super) async fn reap(&self, then: Millis) -> Result<(), StoreError> {
        let Reaped { again, letters, head } =
            self.database.within(CALL_TIMEOUT, self.reap_silent(then)).await?;
        if !letters.is_empty() {
            (self.letters.0)(&letters);
        }
        if let Some(head) = head {
            self.signals.log_grew(head);
        }
        if again {
            self.signals.something_waits();
        }
        Ok(())
    }

    async fn reap_silent(&self, then: Millis) -> sqlx::Result<Reaped> {
        let mut lane = self.database.work.lane().await?;
        let mut transaction = lane.begin().await?;
        let rows = query(concat!(
            "WITH silent AS MATERIALIZED ( \
                SELECT id, attempt, started, owner FROM graceful_tasks WHERE state = 'running' AND lease_until < $1 \
                ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED \
             ), ",
            note!("id, attempt, started, ", clock!(), ", owner, 'the process that ran attempt ' || attempt || ' fell silent' FROM silent WHERE true"),
            ", ",
            trim!("silent"),
            " UPDATE graceful_tasks t SET \
                state = CASE WHEN t.cancel THEN 'cancelled' WHEN t.interrupted + 1 < $3 THEN 'queued' ELSE 'dead' END, \
                interrupted = t.interrupted + 1, max_attempts = least(t.max_attempts + 1, 65535), \
                due = CASE WHEN t.interrupted > 0 THEN ",
            clock!(),
            " + ($4::bigint[])[least(t.interrupted + 1, cardinality($4::bigint[]))] ELSE t.due END, ended = CASE WHEN t.cancel OR t.interrupted + 1 >= $3 THEN ",
            clock!(),
            " END, forget = CASE WHEN t.cancel OR t.interrupted + 1 >= $3 THEN ",
            clock!(),
            " + CASE WHEN t.cancel THEN t.keep ELSE coalesce(t.keep_dead, $5) END END, error = 'the process that ran attempt ' || t.attempt || ' fell silent', \
                owner = NULL, lease_until = NULL \
             FROM silent WHERE t.id = silent.id AND t.state = 'running' AND t.lease_until < $1 \
             RETURNING t.id, t.kind, t.client_id, t.state, t.attempt, t.error, t.ended"
        ))
        .bind(then)
        .bind(REAPED)
        .bind(i32::from(self.max_interruptions))
        .bind((1..=interruption::PAUSES).map(|times| millis(interruption::pause(times))).collect::<Vec<_>>())
        .bind(millis(self.keep_dead))
        .fetch_all(&mut *transaction)
        .await?;
        let mut endings = Vec::new();
        let (mut again, mut letters) = (false, Vec::new());
        for row in &rows {
            let (id, now): (Uuid, _) = (row.try_get("id")?, state(row, "state")?);
            info!(task_id = %id, state = %now, "its process fell silent");
            again |= now == State::Queued;
            if now == State::Dead {
                letters.push(row.try_get("kind")?);
            }
            endings.extend(ended(row)?);
        }
        let head = append(&mut transaction, &endings).await?;
        transaction.commit().await?;
        lane.keep();
        Ok(Reaped { again, letters, head })
    }
}
