//! Claims: a lease on tasks that are due, for a caller who may be gone before they come.
//!
//! # Unknown outcomes
//! The claim is a transaction: a connection that breaks before its COMMIT is sent claims nothing. If it breaks after,
//! the database may have given us tasks that we never hear of. Nobody renews them, so that they are queued again when
//! the lease is over, like those of a process that died; the attempt counts.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Decode, Postgres, Row, Type, query};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::database::{CALL_TIMEOUT, Database, answer};
use super::ending::Endings;
use super::failure::closed;
use super::lease::LEASE;
use super::line::{LEASE_ORDINARY, LEASE_SUSPECT, SUSPECT_IS_DUE, UNTIL_DUE};
use super::record::{millis, number, span};
use super::running::Running;
use super::signals::Signals;
use crate::error::StoreError;
use crate::interruption::SUSPECT;
use crate::task::{Claim, Lease, Millis, Outcome};

/// How often to look without having been told to: a hint may be lost.
const POLL: Duration = Duration::from_secs(1);

/// What is due and could not be claimed is another's in a moment, or ours.
const CONTENDED: Duration = Duration::from_millis(20);

/// Between attempts to release.
const RELEASE_AGAIN: Duration = Duration::from_millis(500);

/// What is claimed.
#[derive(Debug, Clone, Copy)]
enum Line {
    /// Up to so many of those that run beside others.
    Ordinary(usize),
    /// One of those that run alone.
    Suspects,
}

#[derive(Debug)]
pub(super) struct Claimer {
    pub(super) database: Arc<Database>,
    pub(super) signals: Arc<Signals>,
    pub(super) running: Arc<Running>,
    pub(super) endings: Arc<Endings>,
    pub(super) owner: String,
    /// The kinds of task that this process can run.
    pub(super) kinds: Vec<String>,
    /// Where claims are released that nobody came for: they are dropped anywhere.
    pub(super) runtime: Handle,
}

impl Claimer {
    /// Whether a task is due that has to run alone, of a kind that we can run.
    pub(super) async fn suspect_is_due(&self) -> Result<bool, StoreError> {
        self.ask_of_ours(SUSPECT_IS_DUE).await
    }

    /// What a query answers of the kinds that we can run (`$1`), where a task is a suspect from so many interruptions (`$2`).
    async fn ask_of_ours<T>(&self, question: &'static str) -> Result<T, StoreError>
    where
        T: Type<Postgres> + for<'r> Decode<'r, Postgres> + Send + Unpin,
    {
        self.database
            .within(CALL_TIMEOUT, async {
                let mut lane = self.database.work.lane().await?;
                let answer = sqlx::query_scalar(question)
                    .bind(&self.kinds)
                    .bind(i32::from(SUSPECT))
                    .fetch_one(&mut *lane)
                    .await?;
                lane.keep();
                Ok(answer)
            })
            .await
    }

    /// One of those that have to run alone, if one is due.
    pub(super) async fn claim_suspect(self: &Arc<Self>) -> Result<Option<Claim>, StoreError> {
        Ok(self.take(Line::Suspects).await?.pop())
    }

    pub(super) async fn claim(self: &Arc<Self>, most: usize) -> Result<Vec<Claim>, StoreError> {
        if most == 0 {
            return Ok(Vec::new());
        }
        let mut claimable = self.signals.claimable();
        loop {
            claimable.mark_unchanged();
            let claims = self.take(Line::Ordinary(most)).await?;
            if !claims.is_empty() {
                return Ok(claims);
            }
            // A look counts as nothing, so an idle pod stays idle while it polls.
            loop {
                let pause = self.until_due().await?;
                if timeout(pause.max(CONTENDED).min(POLL), claimable.changed()).await.is_ok() || pause <= POLL
                {
                    break;
                }
            }
        }
    }

    /// What is due now. The database is asked in a task of its own: a caller who goes away does not cut a transaction
    /// in two, and what it would have got is released.
    async fn take(self: &Arc<Self>, line: Line) -> Result<Vec<Claim>, StoreError> {
        let asking = self.running.ask();
        let (reply, answer) = oneshot::channel();
        let claimer = self.clone();
        tokio::spawn(async move {
            if reply.is_closed() {
                return;
            }
            let claimed =
                claimer.database.within(CALL_TIMEOUT, claimer.lease_due(line)).await.map(|claims| {
                    let leases: Vec<_> = claims.iter().map(|claim| claim.lease).collect();
                    asking.settle(&leases);
                    Delivery { claimer: claimer.clone(), claims }
                });
            // If the caller is gone the delivery is dropped, which releases what was claimed.
            reply.send(claimed).ok();
        });
        Ok(answer.await.map_err(|_| closed())??.accept())
    }

    /// How long until something is due that we can run.
    async fn until_due(&self) -> Result<Duration, StoreError> {
        let due: Option<Millis> = self.ask_of_ours(UNTIL_DUE).await?;
        Ok(due.map_or(Duration::MAX, span))
    }

    /// Until the database has said that they are not ours, or the lease has: nobody renews them.
    async fn release(self: Arc<Self>, mut leases: Vec<Lease>) {
        let end = Instant::now() + LEASE;
        while !leases.is_empty() {
            let answers: Vec<_> =
                leases.iter().map(|lease| self.endings.end(*lease, Outcome::Released)).collect();
            let mut left = Vec::new();
            for (lease, answered) in leases.into_iter().zip(answers) {
                if answer(answered).await.is_err() {
                    left.push(lease);
                }
            }
            leases = left;
            if Instant::now() > end {
                break;
            }
            if !leases.is_empty() {
                sleep(RELEASE_AGAIN).await;
            }
        }
        for lease in leases {
            warn!(task_id = %lease.id, "cannot release a claim; another attempt begins when its lease is over");
            self.running.ended(lease);
        }
    }

    async fn lease_due(&self, line: Line) -> sqlx::Result<Vec<Claim>> {
        let mut lane = self.database.work.lane().await?;
        let mut transaction = lane.begin().await?;
        let mut rows = self.lease(&mut transaction, line).await?;
        transaction.commit().await?;
        lane.keep();
        let order = |row: &PgRow| -> sqlx::Result<_> {
            Ok((-i32::from(row.try_get::<i16, _>("priority")?), row.try_get::<Millis, _>("due")?))
        };
        // An UPDATE returns its rows in no order.
        rows.sort_by_cached_key(|row| {
            (order(row).unwrap_or_default(), row.try_get::<uuid::Uuid, _>("id").ok())
        });
        rows.iter().map(claimed).collect()
    }

    /// Whoever else claims at this moment skips these, and takes the next.
    async fn lease(&self, connection: &mut PgConnection, line: Line) -> sqlx::Result<Vec<PgRow>> {
        let (statement, most) = match line {
            Line::Ordinary(most) => (LEASE_ORDINARY, most),
            Line::Suspects => (LEASE_SUSPECT, 1),
        };
        query(statement)
            .bind(&self.kinds)
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .bind(&self.owner)
            .bind(millis(LEASE))
            .bind(i32::from(SUSPECT))
            .fetch_all(connection)
            .await
    }
}

/// Claimed tasks on their way to the caller.
struct Delivery {
    claimer: Arc<Claimer>,
    claims: Vec<Claim>,
}

impl Delivery {
    fn accept(mut self) -> Vec<Claim> {
        std::mem::take(&mut self.claims)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.claims.is_empty() {
            let leases = self.claims.iter().map(|claim| claim.lease).collect();
            self.claimer.runtime.spawn(self.claimer.clone().release(leases));
        }
    }
}

fn claimed(row: &PgRow) -> sqlx::Result<Claim> {
    Ok(Claim {
        lease: Lease { id: row.try_get("id")?, attempt: number(row, "attempt")? },
        kind: row.try_get("kind")?,
        input: row.try_get("input")?,
        client_id: row.try_get("client_id")?,
        timeout: row.try_get::<Option<Millis>, _>("timeout")?.map(span),
        max_attempts: number(row, "max_attempts")?,
        created: row.try_get("created")?,
        waited: span(row.try_get("waited")?),
        trace: row.try_get("trace")?,
    })
}
