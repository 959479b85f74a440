//! Claims: a lease on tasks that are due, for a caller who may be gone before they come.
//!
//! # Unknown outcomes
//! A claim is one statement, or where queues are counted one transaction: a connection that breaks before it was sent claims
//! nothing. If it breaks after, the database may have given us tasks that we never hear of. Nobody renews them, so that they are queued again when
//! the lease is over, like those of a process that died; the attempt counts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row, query};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::database::{CALL_TIMEOUT, Database, answer};
use super::ending::Endings;
use super::failure::closed;
use super::lease::LEASE;
use super::line::{LEASE_ORDINARY, LEASE_SUSPECT, SUSPECT_IS_DUE};
use super::queues::Known;
use super::record::{millis, number, span};
use super::running::{Lane, Running};
use super::signals::Signals;
use super::survey::{Bounds, Memory, Survey, Surveyor};
use super::turns::Share;
use crate::error::StoreError;
use crate::interruption::SUSPECT;
use crate::task::{Claim, Lease, Millis, Outcome};

/// How often to look without having been told to: a hint may be lost.
const POLL: Duration = Duration::from_secs(1);

/// What is due and could not be claimed is another's in a moment, or ours.
const CONTENDED: Duration = Duration::from_millis(20);

/// Between attempts to release.
const RELEASE_AGAIN: Duration = Duration::from_millis(500);

/// A share may be larger than its line, since others claim and lines are guessed to be long: what is left is shared out again so often.
const ROUNDS: usize = 4;

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
    /// The queues, as far as this process knows.
    pub(super) known: Arc<Known>,
    /// Whose turns there were.
    pub(super) memory: Memory,
    /// Where claims are released that nobody came for: they are dropped anywhere.
    pub(super) runtime: Handle,
}

impl Claimer {
    /// Whether a task is due that has to run alone, of a kind that we can run.
    pub(super) async fn suspect_is_due(&self) -> Result<bool, StoreError> {
        self.look(async |connection| {
            let bounds = self.bounds(connection, false).await?;
            let (queues, lanes) = bounds.full();
            sqlx::query_scalar(SUSPECT_IS_DUE)
                .bind(&self.kinds)
                .bind(i32::from(SUSPECT))
                .bind(bounds.open())
                .bind(queues)
                .bind(lanes)
                .fetch_one(connection)
                .await
        })
        .await
    }

    /// What only looks, and claims nothing.
    async fn look<T>(
        &self,
        question: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T, StoreError> {
        self.database
            .within(CALL_TIMEOUT, async {
                let mut lane = self.database.work.lane().await?;
                let answer = question(&mut lane).await?;
                lane.keep();
                Ok(answer)
            })
            .await
    }

    /// Whether a queue is known for being bounded: then it is counted before it is claimed from. One that was bounded a moment ago, and is not
    /// known for it yet, is left alone.
    fn counts(&self) -> bool {
        self.known.all().values().any(|queue| !queue.paused && queue.settings.bounded())
    }

    /// What the bounded queues may take.
    async fn bounds(&self, connection: &mut PgConnection, lock: bool) -> sqlx::Result<Bounds> {
        if self.counts() { Bounds::count(connection, lock).await } else { Ok(Bounds::default()) }
    }

    /// What may be claimed; with the locks of the bounded queues if it is to be.
    async fn survey(&self, connection: &mut PgConnection, lock: bool) -> sqlx::Result<Survey> {
        let bounds = self.bounds(connection, lock).await?;
        let surveyor = Surveyor { kinds: &self.kinds, memory: &self.memory, running: self.running.by_lane() };
        surveyor.look(connection, bounds).await
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
                let (due, unfinished) = self.until_due().await?;
                let pause = if unfinished { due.min(CONTENDED) } else { due };
                let told = timeout(pause.max(CONTENDED).min(POLL), claimable.changed()).await.is_ok();
                if told || due <= POLL && !(unfinished && due > CONTENDED) {
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
                    let leases: Vec<_> =
                        claims.iter().map(|(claim, lane)| (claim.lease, lane.clone())).collect();
                    asking.settle(&leases);
                    let claims = claims.into_iter().map(|(claim, _)| claim).collect();
                    Delivery { claimer: claimer.clone(), claims }
                });
            // If the caller is gone the delivery is dropped, which releases what was claimed.
            reply.send(claimed).ok();
        });
        Ok(answer.await.map_err(|_| closed())??.accept())
    }

    /// How long until something may be claimed that we can run, and whether there is more to look at.
    async fn until_due(&self) -> Result<(Duration, bool), StoreError> {
        let survey = self.look(async |connection| self.survey(connection, false).await).await?;
        Ok((survey.wait.map_or(Duration::MAX, span), survey.unfinished))
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

    async fn lease_due(&self, line: Line) -> sqlx::Result<Vec<(Claim, Lane)>> {
        let mut lane = self.database.work.lane().await?;
        let (mut rows, survey) = if self.counts() {
            let mut transaction = lane.begin().await?;
            let (rows, survey) = self.lease_line(&mut transaction, line).await?;
            survey.bounds.spend(&mut transaction, &started(&rows)?).await?;
            transaction.commit().await?;
            (rows, survey)
        } else {
            self.lease_line(&mut lane, line).await?
        };
        lane.keep();
        let lanes = rows.iter().map(lane_of).collect::<sqlx::Result<Vec<_>>>()?;
        self.memory.served(&lanes, &survey);
        let order = |row: &PgRow| -> sqlx::Result<_> {
            Ok((-i32::from(row.try_get::<i16, _>("priority")?), row.try_get::<Millis, _>("due")?))
        };
        // An UPDATE returns its rows in no order.
        rows.sort_by_cached_key(|row| {
            (order(row).unwrap_or_default(), row.try_get::<uuid::Uuid, _>("id").ok())
        });
        rows.iter().map(|row| Ok((self.claimed(row)?, lane_of(row)?))).collect()
    }

    async fn lease_line(
        &self,
        connection: &mut PgConnection,
        line: Line,
    ) -> sqlx::Result<(Vec<PgRow>, Survey)> {
        match line {
            Line::Ordinary(most) => self.lease(connection, most).await,
            Line::Suspects => self.lease_suspect(connection).await,
        }
    }

    /// Shares the places out among the lines that have something due; what one of them does not need the others get.
    async fn lease(&self, connection: &mut PgConnection, most: usize) -> sqlx::Result<(Vec<PgRow>, Survey)> {
        let mut survey = self.survey(connection, true).await?;
        let mut rows: Vec<PgRow> = Vec::new();
        for _ in 0..ROUNDS {
            let shares = survey.turns.share(most - rows.len());
            if shares.is_empty() {
                break;
            }
            let leased = self.lease_shares(connection, &shares).await?;
            let mut found = vec![0; shares.len()];
            for row in &leased {
                let place = usize::try_from(row.try_get::<i64, _>("place")? - 1).unwrap_or(usize::MAX);
                if let Some(found) = found.get_mut(place) {
                    *found += 1;
                }
            }
            for (share, found) in shares.iter().zip(found) {
                survey.turns.found(share, found);
            }
            rows.extend(leased);
            if rows.len() >= most {
                break;
            }
        }
        Ok((rows, survey))
    }

    async fn lease_shares(
        &self,
        connection: &mut PgConnection,
        shares: &[Share],
    ) -> sqlx::Result<Vec<PgRow>> {
        query(LEASE_ORDINARY)
            .bind(&self.kinds)
            .bind(i32::from(SUSPECT))
            .bind(&self.owner)
            .bind(millis(LEASE))
            .bind(shares.iter().map(|share| &*share.line.queue).collect::<Vec<_>>())
            .bind(shares.iter().map(|share| &*share.line.lane).collect::<Vec<_>>())
            .bind(shares.iter().map(|share| share.line.rank).collect::<Vec<_>>())
            .bind(
                shares.iter().map(|share| i64::try_from(share.most).unwrap_or(i64::MAX)).collect::<Vec<_>>(),
            )
            .fetch_all(connection)
            .await
    }

    async fn lease_suspect(&self, connection: &mut PgConnection) -> sqlx::Result<(Vec<PgRow>, Survey)> {
        let bounds = self.bounds(connection, true).await?;
        let (queues, lanes) = bounds.full();
        let rows = query(LEASE_SUSPECT)
            .bind(&self.kinds)
            .bind(i32::from(SUSPECT))
            .bind(&self.owner)
            .bind(millis(LEASE))
            .bind(bounds.open())
            .bind(queues)
            .bind(lanes)
            .fetch_all(connection)
            .await?;
        Ok((rows, Survey { bounds, ..Survey::default() }))
    }

    fn claimed(&self, row: &PgRow) -> sqlx::Result<Claim> {
        let queue: &str = row.try_get("queue")?;
        Ok(Claim {
            lease: Lease { id: row.try_get("id")?, attempt: number(row, "attempt")? },
            kind: row.try_get("kind")?,
            input: row.try_get("input")?,
            client_id: row.try_get("client_id")?,
            timeout: row.try_get::<Option<Millis>, _>("timeout")?.map(span),
            max_attempts: number(row, "max_attempts")?,
            queue: queue.into(),
            backoff: self.known.settings(queue).and_then(|queue| queue.backoff),
            created: row.try_get("created")?,
            waited: span(row.try_get("waited")?),
            trace: row.try_get("trace")?,
        })
    }
}

/// How many of each queue were claimed.
fn started(rows: &[PgRow]) -> sqlx::Result<HashMap<Arc<str>, usize>> {
    let mut started = HashMap::new();
    for row in rows {
        *started.entry(lane_of(row)?.0).or_default() += 1;
    }
    Ok(started)
}

fn lane_of(row: &PgRow) -> sqlx::Result<Lane> {
    Ok((row.try_get::<&str, _>("queue")?.into(), row.try_get::<&str, _>("lane")?.into()))
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
