//! PostgreSQL: a queue that pods share. A task that waits is nobody's; one that runs is leased.
//!
//! # Flow
//! Submissions and ends are written in batches ([`submit`], [`ending`]): while one batch is synced the next gathers.
//! Claims take of each queue its fair part ([`survey`], [`turns`]) of what is due, and skip what others have locked ([`claim`]); leases are renewed in one statement and reaped
//! when their owner falls silent ([`lease`]). [`hints`] tell the others at once; one that is lost costs a second, since
//! all look by themselves each second.
//!
//! # Parts
//! Each is handed what it uses ([`open`] puts them together). [`database`] is asked by all of them; [`signals`] wakes those
//! who wait; [`running`] counts what this process has; [`depth`] counts what waits; [`change`] cancels and retries; [`queues`] changes
//! queues;
//! [`look`] reads; [`tidy`] is called each second.
//!
//! # Guarantees
//! - Each call ends: within [`database::CALL_TIMEOUT`] the database has answered, or the call says `Unavailable`. Loops never
//!   end; after an outage all goes on by itself.
//! - An outcome that is unknown (the connection broke before the answer) resolves by itself: a submission may exist,
//!   and its idempotency key finds it; an end is tried again by its caller and recognises itself; a claim or a release
//!   is renewed by nobody, so that its lease runs out.
//! - A lease is judged by the database's clock, and only by a process that has seen the database answer without a
//!   break for one lease: after an outage all owners get their chance to renew ([`pulse`]).
//! - Events are numbered in the order of their commits ([`ending`]).
//!
//! # Assumptions
//! PostgreSQL 14 or newer, encoding UTF8, a direct connection or a pooler that keeps a session for each client (LISTEN
//! and the session's settings live there). Up to 14 connections for each process. Tables are in the first schema of the
//! user's `search_path`.
//!
//! The database does not go back in time: one that is restored, or whose standby lacks the last commits, has lost tasks,
//! and gives their events' numbers again. Then `UPDATE graceful_log SET stream = …` tells clients to begin anew.
//!
//! # TLS
//! As the URL says: `?sslmode=verify-full&sslrootcert=/path/ca.pem` has the server's certificate checked against that
//! file and the system's roots, of which an image made from nothing has none. `sslmode=require` encrypts and checks
//! nothing.

mod attempts;
mod change;
mod claim;
mod connections;
mod database;
mod depth;
mod ending;
mod failure;
mod hints;
mod lease;
mod line;
mod look;
mod many;
mod pulse;
mod queues;
mod record;
mod running;
mod schema;
mod signals;
mod submit;
mod survey;
mod tidy;
mod turns;
mod url;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use self::change::Changes;
use self::claim::Claimer;
use self::database::{CALL_TIMEOUT, Database, answer};
use self::depth::QueueDepth;
use self::ending::Endings;
use self::hints::{Channel, Hint};
use self::lease::{Leases, Letters, RENEW};
use self::pulse::Pulse;
use self::queues::{Declared, Known, Queues};
use self::running::Running;
use self::signals::Signals;
use self::submit::Submissions;
use self::survey::Memory;
use self::tidy::Tidy;
use crate::error::{OpenError, StoreError};
use crate::event::Events;
use crate::queue::{QueuePut, QueueRecord, QueueRemoved, QueueSettings};
use crate::task::{
    Cancelled, Change, Changed, Claim, Completion, Counts, Cursor, Filter, Found, Held, Hold, Lease, NewTask,
    Outcome, Page, Retried, Submitted, TaskRecord,
};
use crate::{StoreSettings, TaskStore};

/// A queue in PostgreSQL. Dropped, it ends at once; what it had claimed is queued again when the leases are over.
pub struct PostgresStore {
    owner: String,
    stream: String,
    database: Arc<Database>,
    signals: Arc<Signals>,
    depth: Arc<QueueDepth>,
    submissions: Submissions,
    claimer: Arc<Claimer>,
    leases: Arc<Leases>,
    endings: Arc<Endings>,
    changes: Changes,
    queues: Arc<Queues>,
    tidy: Tidy,
    /// Submissions, ends, hints and the pulse: these run until the store is dropped.
    _loops: JoinSet<()>,
}

/// Connects, and makes or updates the tables. The URL is in the form of libpq's,
/// `postgres://user:password@host:5432/database?sslmode=…`; its password is never shown.
///
/// # Errors
/// All may pass, so try again: the database may not be up yet.
pub async fn open(url: &str, settings: StoreSettings) -> Result<Arc<PostgresStore>, OpenError> {
    let options = url::parse(url)?;
    let connected = timeout(CALL_TIMEOUT, options.connect()).await;
    let mut connection = connected
        .map_err(|_| OpenError::Engine {
            detail: format!("the database did not answer within {} s", CALL_TIMEOUT.as_secs()),
        })?
        .map_err(|error| failure::not_opened(&error))?;
    let stream = schema::prepare(&mut connection).await?;
    let (clock, steady, head) =
        pulse::ask(&mut connection).await.map_err(|error| failure::not_opened(&error))?;
    let known = Known::default();
    known.read(&mut connection).await.map_err(|error| failure::not_opened(&error))?;
    drop(connection);
    let pulse = Pulse::default();
    pulse.beat(Instant::now(), clock, steady);
    let (hints, given) = mpsc::unbounded_channel();
    let signals = Signals::new(hints);
    // Before anyone looks: who begins at the head must not begin at 0.
    signals.saw_head(head);
    Ok(Arc::new(assemble(
        options,
        settings,
        stream,
        Arc::new(pulse),
        (Arc::new(signals), given),
        Arc::new(known),
    )))
}

/// The parts of an open queue, each with those it uses.
fn assemble(
    options: PgConnectOptions,
    settings: StoreSettings,
    stream: String,
    pulse: Arc<Pulse>,
    (signals, given): (Arc<Signals>, mpsc::UnboundedReceiver<Hint>),
    known: Arc<Known>,
) -> PostgresStore {
    let StoreSettings { owner, capacity, kinds, keep_events, max_interruptions, keep_dead, owned, letters } =
        settings;
    let database = Arc::new(Database::new(&options));
    let running = Running::new(owned);
    let depth = Arc::new(QueueDepth::new(database.clone(), capacity));
    let (submissions, inserting) = Submissions::new(database.clone(), signals.clone(), depth.clone());
    let (endings, ending) = Endings::new(
        database.clone(),
        signals.clone(),
        running.clone(),
        known.clone(),
        (owner.clone(), keep_dead),
    );
    let endings = Arc::new(endings);
    let leases = Arc::new(Leases {
        database: database.clone(),
        signals: signals.clone(),
        running: running.clone(),
        owner: owner.clone(),
        keep_dead,
        max_interruptions,
        letters: Letters(letters),
    });
    let claimer = Arc::new(Claimer {
        database: database.clone(),
        signals: signals.clone(),
        running: running.clone(),
        endings: endings.clone(),
        owner: owner.clone(),
        kinds,
        known: known.clone(),
        memory: Memory::default(),
        runtime: Handle::current(),
    });
    let queues = Arc::new(Queues { database: database.clone(), signals: signals.clone(), known });
    let changes = Changes { database: database.clone(), signals: signals.clone() };
    let tidy = Tidy { database: database.clone(), leases: leases.clone(), pulse: pulse.clone(), keep_events };
    let channel = Channel::of_stream(&stream);
    let mut loops = JoinSet::new();
    loops.spawn(inserting);
    loops.spawn(ending);
    loops.spawn(hints::tell(database.clone(), channel.clone(), given));
    loops.spawn(hints::listen(signals.clone(), channel, options));
    loops.spawn(queues::keep_up(queues.clone()));
    loops.spawn(pulse::run(database.clone(), pulse, running, signals.clone()));
    PostgresStore {
        owner,
        stream,
        database,
        signals,
        depth,
        submissions,
        claimer,
        leases,
        endings,
        changes,
        queues,
        tidy,
        _loops: loops,
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("owner", &self.owner).finish_non_exhaustive()
    }
}

#[async_trait]
impl TaskStore for PostgresStore {
    async fn submit(&self, task: NewTask, hold: Hold) -> Result<Submitted, StoreError> {
        self.submissions.submit(task, hold).await
    }

    async fn submit_many(
        &self,
        tasks: Vec<NewTask>,
        hold: Hold,
    ) -> Result<Vec<Result<Submitted, StoreError>>, StoreError> {
        self.submissions.submit_many(tasks, hold).await
    }

    async fn claim(&self, most: usize) -> Result<Vec<Claim>, StoreError> {
        self.claimer.claim(most).await
    }

    async fn suspect_is_due(&self) -> Result<bool, StoreError> {
        self.claimer.suspect_is_due().await
    }

    async fn claim_suspect(&self) -> Result<Option<Claim>, StoreError> {
        self.claimer.claim_suspect().await
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Held>, StoreError> {
        self.leases.renew(leases).await
    }

    fn renew_every(&self) -> Option<Duration> {
        Some(RENEW)
    }

    async fn progress(&self, lease: Lease, progress: String) -> Result<Held, StoreError> {
        self.leases.progress(lease, progress).await
    }

    async fn complete(&self, lease: Lease, outcome: Outcome) -> Result<Completion, StoreError> {
        answer(self.endings.end(lease, outcome)).await
    }

    async fn cancel(&self, id: Uuid) -> Result<Cancelled, StoreError> {
        self.changes.cancel(id).await
    }

    async fn retry(&self, id: Uuid, hold: Hold) -> Result<Retried, StoreError> {
        // What waits is nobody's: there is no count that it could be missing from.
        let _held = hold;
        self.changes.retry(id).await
    }

    async fn get(&self, id: Uuid) -> Result<Option<TaskRecord>, StoreError> {
        self.database.get(id).await
    }

    async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        self.database.list(filter, after, limit, self.depth.few_live()).await
    }

    async fn find(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Found, StoreError> {
        self.database.find(filter, after, limit, self.depth.few_live()).await
    }

    async fn change(&self, ids: Vec<Uuid>, change: Change, hold: Hold) -> Result<Changed, StoreError> {
        let _held = hold;
        self.changes.change(&ids, change).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.depth.counts().await
    }

    async fn put_queue(&self, name: &str, settings: QueueSettings) -> Result<QueuePut, StoreError> {
        self.queues.put(name, settings).await
    }

    async fn pause_queue(&self, name: &str, paused: bool) -> Result<bool, StoreError> {
        self.queues.pause(name, paused).await
    }

    async fn remove_queue(&self, name: &str) -> Result<QueueRemoved, StoreError> {
        self.queues.remove(name).await
    }

    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        self.queues.refresh().await?;
        let counts = self.depth.by_queue().await?;
        let record = |(name, queue): (&String, &Declared)| QueueRecord {
            name: name.clone(),
            settings: queue.settings,
            paused: queue.paused,
            counts: counts.get(name).copied().unwrap_or_default(),
        };
        Ok(self.queues.known.all().iter().map(record).collect())
    }

    fn queue_settings(&self, name: &str) -> Option<QueueSettings> {
        self.queues.known.settings(name)
    }

    async fn events(&self, after: u64, limit: usize) -> Result<Events, StoreError> {
        self.database.events(after, limit).await
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.signals.head()
    }

    fn stream(&self) -> &str {
        &self.stream
    }

    fn cancellations(&self) -> broadcast::Receiver<Lease> {
        self.signals.cancellations()
    }

    async fn maintain(&self) -> Result<(), StoreError> {
        self.tidy.maintain().await
    }

    fn shared(&self) -> bool {
        true
    }
}
