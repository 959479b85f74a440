//! Ends of attempts, many in one transaction, and the numbered events of the tasks that ended with them.
//!
//! # Numbers
//! Each transaction that ends tasks takes its numbers from one counter row, last of all it does. The row stays locked
//! until the commit, so the next one's numbers are higher, and nobody can read them before ours.
//!
//! # Locks
//! Rows are locked in the order of their ids, then the counter; who cannot wait in that order skips what is locked. So
//! no two of our transactions wait for each other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row, query};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::attempts::{note, trim};
use super::database::{CALL_TIMEOUT, Database};
use super::failure::{again, is_in_the_data};
use super::queues::Known;
use super::record::{Ended, ended, millis, now, state, text};
use super::running::Running;
use super::signals::Signals;
use crate::error::StoreError;
use crate::task::{Completion, Lease, Outcome, State};

/// Attempts in one batch: the counter is locked as long as one takes.
const BATCH: usize = 256;

/// One attempt's end on its way to a batch.
#[derive(Debug)]
struct Ending {
    lease: Lease,
    outcome: Outcome,
    reply: oneshot::Sender<Result<Completion, StoreError>>,
}

/// The columns of an outcome, as the statement in [`Writer::settle`] takes them.
struct Columns {
    outcome: &'static str,
    output: Option<String>,
    error: Option<String>,
    wait: Option<i64>,
}

impl From<&Outcome> for Columns {
    fn from(outcome: &Outcome) -> Self {
        let nothing = Self { outcome: "", output: None, error: None, wait: None };
        match outcome {
            Outcome::Succeeded(output) => {
                Self { outcome: "succeeded", output: Some(text(output.clone())), ..nothing }
            }
            Outcome::Failed { error, retry } => Self {
                outcome: "failed",
                error: Some(text(error.clone())),
                wait: retry.map(millis),
                ..nothing
            },
            Outcome::Cancelled => Self { outcome: "cancelled", ..nothing },
            Outcome::Released => Self { outcome: "released", ..nothing },
        }
    }
}

/// The way to the loop that writes ends.
#[derive(Debug)]
pub(super) struct Endings {
    running: Arc<Running>,
    queue: mpsc::UnboundedSender<Ending>,
}

/// Writes batches of ends.
#[derive(Debug)]
struct Writer {
    database: Arc<Database>,
    signals: Arc<Signals>,
    running: Arc<Running>,
    known: Arc<Known>,
    owner: String,
    /// How long dead letters are kept whose task does not say.
    keep_dead: Duration,
}

impl Endings {
    /// The other half is the loop that writes until the store is dropped.
    pub(super) fn new(
        database: Arc<Database>,
        signals: Arc<Signals>,
        running: Arc<Running>,
        known: Arc<Known>,
        (owner, keep_dead): (String, Duration),
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, ended) = mpsc::unbounded_channel();
        let writer = Writer { database, signals, running: running.clone(), known, owner, keep_dead };
        (Self { running, queue }, writer.run(ended))
    }

    /// Ends an attempt; done even if nobody waits for the answer.
    pub(super) fn end(
        &self,
        lease: Lease,
        outcome: Outcome,
    ) -> oneshot::Receiver<Result<Completion, StoreError>> {
        self.running.tend(&[lease]);
        let (reply, answer) = oneshot::channel();
        // If the store is being dropped the answer says so.
        self.queue.send(Ending { lease, outcome, reply }).ok();
        answer
    }
}

impl Writer {
    /// One batch at a time, since they would wait for each other at the counter.
    async fn run(self, mut ended: mpsc::UnboundedReceiver<Ending>) {
        loop {
            let mut batch = Vec::new();
            if ended.recv_many(&mut batch, BATCH).await == 0 {
                return;
            }
            self.write(batch).await;
        }
    }

    async fn write(&self, batch: Vec<Ending>) {
        let mut spoilt = false;
        let written = self
            .database
            .within(CALL_TIMEOUT, async {
                let done = self.try_write(&batch).await;
                spoilt = done.as_ref().err().is_some_and(is_in_the_data);
                done
            })
            .await;
        match written {
            Ok(Written { completions, head }) => {
                // Where places are counted, an end is one for another task.
                let places = batch.iter().filter_map(|one| self.running.queue(one.lease));
                let freed = places.into_iter().any(|queue| self.known.has_places(&queue));
                for one in &batch {
                    self.running.ended(one.lease);
                }
                if let Some(head) = head {
                    self.signals.log_grew(head);
                }
                if freed || completions.contains(&Completion::Now(State::Queued)) {
                    self.signals.something_waits();
                }
                for (one, completion) in batch.into_iter().zip(completions) {
                    if one.reply.send(Ok(completion)).is_err() && completion != Completion::Lost {
                        self.running.unheard(one.lease);
                    }
                }
            }
            Err(_) if spoilt && batch.len() > 1 => {
                for one in batch {
                    Box::pin(self.write(vec![one])).await;
                }
            }
            Err(error) => {
                for one in batch {
                    self.running.doubt(one.lease);
                    one.reply.send(Err(again(&error))).ok();
                }
            }
        }
    }

    async fn try_write(&self, batch: &[Ending]) -> sqlx::Result<Written> {
        let mut lane = self.database.work.lane().await?;
        let mut transaction = lane.begin().await?;
        let mut completions = vec![Completion::Lost; batch.len()];
        let mut endings = Vec::new();
        for row in self.settle(&mut transaction, batch).await? {
            let place = row.try_get::<i64, _>("place")? - 1;
            if let Some(completion) = usize::try_from(place).ok().and_then(|place| completions.get_mut(place))
            {
                *completion = Completion::Now(state(&row, "state")?);
            }
            if let Some(end) = ended(&row)? {
                endings.push((place, end));
            }
        }
        let doubtful = batch.iter().zip(&mut completions);
        let doubtful: Vec<_> = doubtful
            .filter(|(one, completion)| {
                **completion == Completion::Lost && self.running.is_doubtful(one.lease)
            })
            .collect();
        if !doubtful.is_empty() {
            remember(&mut transaction, &self.owner, doubtful).await?;
        }
        endings.sort_by_key(|(place, _)| *place);
        let endings: Vec<_> = endings.into_iter().map(|(_, end)| end).collect();
        let head = append(&mut transaction, &endings).await?;
        transaction.commit().await?;
        lane.keep();
        Ok(Written { completions, head })
    }

    /// Decides the next state of each task that its runner ends an attempt at; for those whose runner fell silent,
    /// [`lease`](super::lease) does. A wish to cancel stands, unless it came too late; a released attempt does not count.
    async fn settle(&self, connection: &mut PgConnection, batch: &[Ending]) -> sqlx::Result<Vec<PgRow>> {
        let ids: Vec<_> = batch.iter().map(|one| one.lease.id).collect();
        let attempts: Vec<_> = batch.iter().map(|one| i32::from(one.lease.attempt)).collect();
        let (mut outcomes, mut outputs, mut errors, mut waits) = (vec![], vec![], vec![], vec![]);
        for one in batch {
            let Columns { outcome, output, error, wait } = Columns::from(&one.outcome);
            outcomes.push(outcome);
            outputs.push(output);
            errors.push(error);
            waits.push(wait);
        }
        query(concat!(
            "WITH mine AS MATERIALIZED ( \
                SELECT id, attempt, max_attempts, cancel, started FROM graceful_tasks \
                WHERE id = ANY($1) AND state = 'running' AND owner = $2 ORDER BY id FOR UPDATE \
             ), decided AS ( \
                SELECT i.*, mine.started, CASE \
                    WHEN i.outcome = 'succeeded' THEN 'succeeded' \
                    WHEN i.outcome = 'cancelled' OR mine.cancel THEN 'cancelled' \
                    WHEN i.outcome = 'released' OR (i.wait IS NOT NULL AND mine.attempt < mine.max_attempts) THEN 'queued' \
                    ELSE 'dead' END AS next \
                FROM UNNEST($1::uuid[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::bigint[]) \
                WITH ORDINALITY AS i (id, attempt, outcome, output, error, wait, place) \
                JOIN mine ON mine.id = i.id AND mine.attempt = i.attempt \
             ), ",
            note!("id, attempt, started, ", now!(), ", $2, error FROM decided WHERE next = 'queued' AND wait IS NOT NULL"),
            ", ",
            trim!("decided"),
            " UPDATE graceful_tasks t SET \
                state = d.next, \
                attempt = CASE WHEN d.next = 'queued' AND d.wait IS NULL THEN t.attempt - 1 ELSE t.attempt END, \
                started = CASE WHEN d.next = 'queued' AND d.wait IS NULL THEN NULL ELSE t.started END, \
                due = CASE WHEN d.next = 'queued' AND d.wait IS NOT NULL THEN ",
            now!(),
            " + d.wait ELSE t.due END, \
                ended = CASE WHEN d.next = 'queued' THEN NULL ELSE ",
            now!(),
            " END, forget = CASE d.next WHEN 'queued' THEN NULL ELSE ",
            now!(),
            " + CASE d.next WHEN 'dead' THEN coalesce(t.keep_dead, $8) ELSE t.keep END END, lease_until = NULL, output = d.output, error = coalesce(d.error, t.error) \
             FROM decided d WHERE t.id = d.id AND t.state = 'running' \
             RETURNING d.place, t.id, t.kind, t.client_id, t.state, t.attempt, t.error, t.ended"
        ))
        .bind(ids)
        .bind(&self.owner)
        .bind(attempts)
        .bind(outcomes)
        .bind(outputs)
        .bind(errors)
        .bind(waits)
        .bind(millis(self.keep_dead))
        .fetch_all(connection)
        .await
    }
}

struct Written {
    /// In the order of the batch.
    completions: Vec<Completion>,
    head: Option<u64>,
}

/// Attempts whose end may have been written by a transaction that never answered. The owner stays in the row until
/// someone else has the task, so that the end is known for ours.
async fn remember(
    connection: &mut PgConnection,
    owner: &str,
    doubtful: Vec<(&Ending, &mut Completion)>,
) -> sqlx::Result<()> {
    let ids: Vec<_> = doubtful.iter().map(|(one, _)| one.lease.id).collect();
    let rows =
        query("SELECT id, attempt, state FROM graceful_tasks WHERE id = ANY($1) AND owner = $2 AND state <> 'running'")
            .bind(ids)
            .bind(owner)
            .fetch_all(connection)
            .await?;
    let mut found = HashMap::new();
    for row in rows {
        found.insert(
            row.try_get::<Uuid, _>("id")?,
            (row.try_get::<i32, _>("attempt")?, state(&row, "state")?),
        );
    }
    for (one, completion) in doubtful {
        let Some((attempt, state)) = found.get(&one.lease.id) else { continue };
        let released = matches!(one.outcome, Outcome::Released) && *state == State::Queued;
        if *attempt == i32::from(one.lease.attempt) - i32::from(released) {
            *completion = Completion::Now(*state);
        }
    }
    Ok(())
}

/// Numbers the events of tasks that have ended in this transaction. Nothing may come after it but the commit. The
/// log's new head, if there were any.
pub(super) async fn append(connection: &mut PgConnection, ended: &[Ended]) -> sqlx::Result<Option<u64>> {
    if ended.is_empty() {
        return Ok(None);
    }
    let head: i64 = sqlx::query_scalar(
        "WITH log AS ( \
            UPDATE graceful_log SET head = head + $1 RETURNING head \
         ), added AS ( \
            INSERT INTO graceful_events (number, at, task_id, state, attempt, kind, client_id, error) \
            SELECT log.head - $1 + e.place, e.at, e.task_id, e.state, e.attempt, e.kind, e.client_id, e.error \
            FROM log, UNNEST($2::bigint[], $3::uuid[], $4::text[], $5::integer[], $6::text[], $7::text[], $8::text[]) \
            WITH ORDINALITY AS e (at, task_id, state, attempt, kind, client_id, error, place) \
         ) SELECT head FROM log",
    )
    .bind(ended.len() as i64)
    .bind(ended.iter().map(|end| end.at).collect::<Vec<_>>())
    .bind(ended.iter().map(|end| end.task_id).collect::<Vec<_>>())
    .bind(ended.iter().map(|end| end.state.as_str()).collect::<Vec<_>>())
    .bind(ended.iter().map(|end| end.attempt).collect::<Vec<_>>())
    .bind(ended.iter().map(|end| end.kind.as_str()).collect::<Vec<_>>())
    .bind(ended.iter().map(|end| end.client_id.as_deref()).collect::<Vec<_>>())
    .bind(ended.iter().map(|end| end.error.as_deref()).collect::<Vec<_>>())
    .fetch_one(connection)
    .await?;
    Ok(u64::try_from(head).ok())
}
