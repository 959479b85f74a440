//! Submissions, many in one statement: whatever waits is inserted together, synced once, and answered.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Row, query};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::database::{CALL_TIMEOUT, Database, answer};
use super::depth::{Begun, QueueDepth};
use super::failure::{again, closed, is_in_the_data, late};
use super::record::{millis, now, record, record_columns, text};
use super::signals::Signals;
use crate::error::{StoreError, Unavailable};
use crate::room::Room;
use crate::task::{Hold, Idempotency, NewTask, Submitted};

/// Submissions that wait for their batch; more wait for a place among these.
const WAITING: usize = 4096;

/// Batches on their way: while one is synced the next is sent.
const FLIGHTS: usize = 2;

/// Tasks in one batch, so that the first does not wait long for the last.
const BATCH: usize = 256;

/// Bytes of input in one batch, give or take a task: far below PostgreSQL's 1 GiB a message.
const BATCH_BYTES: usize = 16 << 20;

/// A key's task may be forgotten between the insert that it stopped and the look at it: then there is room for ours.
const ROUNDS: usize = 3;

/// One task on its way to a batch.
#[derive(Debug)]
struct Submission {
    task: NewTask,
    hold: Hold,
    arrived: Instant,
    _begun: Begun,
    reply: oneshot::Sender<Result<Submitted, StoreError>>,
}

/// The way to the loop that inserts tasks.
#[derive(Debug)]
pub(super) struct Submissions {
    database: Arc<Database>,
    depth: Arc<QueueDepth>,
    room: Room,
    queue: mpsc::Sender<Submission>,
    inserter: Arc<Inserter>,
}

/// Inserts batches of tasks.
#[derive(Debug)]
struct Inserter {
    database: Arc<Database>,
    signals: Arc<Signals>,
}

impl Submissions {
    /// The other half is the loop that inserts until the store is dropped.
    pub(super) fn new(
        database: Arc<Database>,
        signals: Arc<Signals>,
        depth: Arc<QueueDepth>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, submitted) = mpsc::channel(WAITING);
        let inserter = Arc::new(Inserter { database: database.clone(), signals });
        let running = inserter.clone().run(submitted);
        (Self { database, depth, room: Room::default(), queue, inserter }, running)
    }

    pub(super) async fn submit(&self, task: NewTask, hold: Hold) -> Result<Submitted, StoreError> {
        if self.depth.is_full() {
            return self.known_before(&task).await?.ok_or(StoreError::Full);
        }
        let hold = self.room.take(std::slice::from_ref(&task), hold)?;
        let (reply, answered) = oneshot::channel();
        let begun = self.depth.began();
        let submission = Submission { task, hold, arrived: Instant::now(), reply, _begun: begun };
        match timeout(CALL_TIMEOUT, self.queue.send(submission)).await {
            Ok(Ok(())) => answer(answered).await,
            Ok(Err(_)) => Err(closed()),
            Err(_) => Err(late(CALL_TIMEOUT)),
        }
    }

    /// In batches of their own, one after the other: they are as large as a batch is to be already.
    pub(super) async fn submit_many(
        &self,
        tasks: Vec<NewTask>,
        hold: Hold,
    ) -> Result<Vec<Result<Submitted, StoreError>>, StoreError> {
        let _hold = self.room.take(&tasks, hold)?;
        let mut answers = Vec::with_capacity(tasks.len());
        for batch in tasks.chunks(BATCH) {
            if self.depth.is_full() {
                for task in batch {
                    answers.push(self.known_before(task).await?.ok_or(StoreError::Full));
                }
                continue;
            }
            let _begun: Vec<_> = batch.iter().map(|_| self.depth.began()).collect();
            answers.extend(self.inserter.insert_at_once(batch).await?);
        }
        Ok(answers)
    }

    /// Even a full queue knows what it has.
    async fn known_before(&self, task: &NewTask) -> Result<Option<Submitted>, StoreError> {
        let Some(own) = &task.idempotency else { return Ok(None) };
        self.database
            .within(CALL_TIMEOUT, async {
                let mut lane = self.database.desk.lane().await?;
                let found = holders(&mut lane, &[text(own.key.clone())]).await?;
                lane.keep();
                found.first().map(|row| submitted_before(row, own)).transpose()
            })
            .await
    }
}

impl Inserter {
    /// Sends batches until the store is dropped.
    async fn run(self: Arc<Self>, mut submitted: mpsc::Receiver<Submission>) {
        let flights = Arc::new(Semaphore::new(FLIGHTS));
        loop {
            // The place first: what comes meanwhile goes into the same batch.
            let Ok(place) = flights.clone().acquire_owned().await else { return };
            let Some(first) = submitted.recv().await else { return };
            let mut bytes = first.task.input.len();
            let mut batch = vec![first];
            while batch.len() < BATCH
                && bytes < BATCH_BYTES
                && let Ok(next) = submitted.try_recv()
            {
                bytes += next.task.input.len();
                batch.push(next);
            }
            let inserter = self.clone();
            tokio::spawn(async move {
                inserter.insert(batch).await;
                drop(place);
            });
        }
    }

    async fn insert_in_one(
        &self,
        tasks: &[&NewTask],
        spoilt: &mut bool,
    ) -> Result<Vec<Result<Submitted, StoreError>>, StoreError> {
        self.database
            .within(CALL_TIMEOUT, async {
                let mut lane = self.database.work.lane().await?;
                let done = insert_all(&mut lane, tasks).await;
                *spoilt = done.as_ref().err().is_some_and(is_in_the_data);
                let done = done?;
                lane.keep();
                Ok(done)
            })
            .await
    }

    /// What was handed in together goes together.
    async fn insert_at_once(
        &self,
        tasks: &[NewTask],
    ) -> Result<Vec<Result<Submitted, StoreError>>, StoreError> {
        let tasks: Vec<_> = tasks.iter().collect();
        let mut spoilt = false;
        let answers = match self.insert_in_one(&tasks, &mut spoilt).await {
            Err(_) if spoilt && tasks.len() > 1 => {
                // PostgreSQL takes one of them for wrong: each by itself, so that the others are written.
                let mut answers = Vec::with_capacity(tasks.len());
                for task in tasks {
                    match self.insert_in_one(&[task], &mut false).await {
                        Ok(one) => answers.extend(one),
                        Err(error) => answers.push(Err(error)),
                    }
                }
                answers
            }
            done => done?,
        };
        if answers.iter().any(|answer| matches!(answer, Ok(Submitted::New))) {
            self.signals.something_waits();
        }
        Ok(answers)
    }

    async fn insert(self: Arc<Self>, batch: Vec<Submission>) {
        let (batch, expired): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|one| one.arrived.elapsed() < CALL_TIMEOUT && !one.reply.is_closed());
        for one in expired {
            drop(one.hold);
            one.reply.send(Err(late(CALL_TIMEOUT))).ok();
        }
        if batch.is_empty() {
            return;
        }
        let tasks: Vec<_> = batch.iter().map(|one| &one.task).collect();
        let mut spoilt = false;
        let done = self.insert_in_one(&tasks, &mut spoilt).await;
        match done {
            Ok(answers) => {
                if answers.iter().any(|answer| matches!(answer, Ok(Submitted::New))) {
                    self.signals.something_waits();
                }
                for (one, answer) in batch.into_iter().zip(answers) {
                    drop(one.hold);
                    one.reply.send(answer).ok();
                }
            }
            // PostgreSQL takes one of them for wrong: each by itself, so that the others are written.
            Err(_) if spoilt && batch.len() > 1 => {
                for one in batch {
                    Box::pin(self.clone().insert(vec![one])).await;
                }
            }
            Err(error) => {
                for one in batch {
                    drop(one.hold);
                    one.reply.send(Err(again(&error))).ok();
                }
            }
        }
    }
}

/// The answers, in the order of the tasks.
async fn insert_all(
    connection: &mut PgConnection,
    tasks: &[&NewTask],
) -> sqlx::Result<Vec<Result<Submitted, StoreError>>> {
    let mut left: Vec<usize> = (0..tasks.len()).collect();
    // Two processes that insert the same keys in the same order wait for each other one way only.
    left.sort_by_key(|place| tasks[*place].idempotency.as_ref().map(|own| own.key.as_str()));
    let mut answers: Vec<Option<Submitted>> = tasks.iter().map(|_| None).collect();
    for _ in 0..ROUNDS {
        let batch: Vec<_> = left.iter().map(|place| tasks[*place]).collect();
        let mut inserted: HashMap<Uuid, ()> =
            insert_new(connection, &batch).await?.into_iter().map(|id| (id, ())).collect();
        left.retain(|place| match inserted.entry(tasks[*place].id) {
            Entry::Occupied(new) => {
                new.remove();
                answers[*place] = Some(Submitted::New);
                false
            }
            Entry::Vacant(_) => true,
        });
        let keys: Vec<_> = left
            .iter()
            .filter_map(|place| Some(text(tasks[*place].idempotency.as_ref()?.key.clone())))
            .collect();
        if keys.is_empty() {
            break;
        }
        let mut found = HashMap::new();
        for row in holders(connection, &keys).await? {
            found.insert(row.try_get::<String, _>("key")?, row);
        }
        let mut answered = Ok(());
        left.retain(|place| {
            let Some(own) = &tasks[*place].idempotency else { return true };
            let Some(row) = found.get(&text(own.key.clone())) else { return true };
            match submitted_before(row, own) {
                Ok(answer) => answers[*place] = Some(answer),
                Err(error) => answered = Err(error),
            }
            false
        });
        answered?;
        if left.is_empty() {
            break;
        }
    }
    for place in missing_queues(connection, tasks, &left).await? {
        answers[place] = Some(Submitted::NoQueue);
    }
    let taken = || StoreError::Unavailable {
        why: Unavailable::Engine,
        detail: "another task has this id, or its key's task comes and goes".to_owned(),
    };
    Ok(answers.into_iter().map(|answer| answer.ok_or_else(taken)).collect())
}

/// Those of the tasks that name a queue that is not there.
async fn missing_queues(
    connection: &mut PgConnection,
    tasks: &[&NewTask],
    left: &[usize],
) -> sqlx::Result<Vec<usize>> {
    if left.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<_> = left.iter().map(|place| text(tasks[*place].queue.clone())).collect();
    let found: Vec<String> = sqlx::query_scalar("SELECT name FROM graceful_queues WHERE name = ANY($1)")
        .bind(&names)
        .fetch_all(connection)
        .await?;
    let missing = left.iter().zip(&names).filter(|(_, name)| !found.contains(name));
    Ok(missing.map(|(place, _)| *place).collect())
}

/// The ids of those that were not there before. One statement, so one transaction and one round trip.
async fn insert_new(connection: &mut PgConnection, tasks: &[&NewTask]) -> sqlx::Result<Vec<Uuid>> {
    let column = |of: fn(&NewTask) -> Option<String>| tasks.iter().map(|task| of(task)).collect::<Vec<_>>();
    let ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
    let priorities: Vec<_> = tasks.iter().map(|task| task.priority).collect();
    let attempts: Vec<_> = tasks.iter().map(|task| i32::from(task.max_attempts.max(1))).collect();
    let delays: Vec<_> = tasks.iter().map(|task| millis(task.delay)).collect();
    let keeps: Vec<_> = tasks.iter().map(|task| millis(task.keep)).collect();
    let keeps_dead: Vec<_> = tasks.iter().map(|task| task.keep_dead.map(millis)).collect();
    let timeouts: Vec<_> = tasks.iter().map(|task| task.timeout.map(millis)).collect();
    let fingerprints: Vec<_> =
        tasks.iter().map(|task| task.idempotency.as_ref().map(|own| own.fingerprint.as_slice())).collect();
    sqlx::query_scalar(concat!(
        "INSERT INTO graceful_tasks (id, state, priority, attempt, max_attempts, granted, created, due, keep, timeout, \
         kind, client_id, trace, key, fingerprint, input, keep_dead, queue, lane) \
         SELECT id, 'queued', priority, 0, attempts, attempts, ",
        now!(),
        ", ",
        now!(),
        " + delay, keep, timeout, kind, client_id, trace, key, fingerprint, input, keep_dead, queue, lane \
         FROM UNNEST($1::uuid[], $2::smallint[], $3::integer[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], \
         $8::text[], $9::text[], $10::text[], $11::bytea[], $12::text[], $13::bigint[], $14::text[], $15::text[]) \
         AS new (id, priority, attempts, delay, keep, timeout, kind, client_id, trace, key, fingerprint, input, keep_dead, queue, lane) \
         WHERE EXISTS (SELECT FROM graceful_queues q WHERE q.name = new.queue) \
         ON CONFLICT DO NOTHING RETURNING id"
    ))
    .bind(ids)
    .bind(priorities)
    .bind(attempts)
    .bind(delays)
    .bind(keeps)
    .bind(timeouts)
    .bind(column(|task| Some(text(task.kind.clone()))))
    .bind(column(|task| task.client_id.clone().map(text)))
    .bind(column(|task| task.trace.clone().map(text)))
    .bind(column(|task| task.idempotency.as_ref().map(|own| text(own.key.clone()))))
    .bind(fingerprints)
    .bind(column(|task| Some(text(task.input.clone()))))
    .bind(keeps_dead)
    .bind(column(|task| Some(text(task.queue.clone()))))
    .bind(column(|task| Some(text(task.concurrency_key.clone().unwrap_or_default()))))
    .fetch_all(connection)
    .await
}

/// The tasks that have these keys.
async fn holders(connection: &mut PgConnection, keys: &[String]) -> sqlx::Result<Vec<PgRow>> {
    query(concat!("SELECT ", record_columns!(), ", key, fingerprint FROM graceful_tasks WHERE key = ANY($1)"))
        .bind(keys)
        .fetch_all(connection)
        .await
}

fn submitted_before(row: &PgRow, own: &Idempotency) -> sqlx::Result<Submitted> {
    let known = record(row)?;
    Ok(if own.is(row.try_get("fingerprint")?) {
        Submitted::Known(Box::new(known))
    } else {
        Submitted::KeyReused { id: known.id }
    })
}
