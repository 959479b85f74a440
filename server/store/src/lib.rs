//! The durable queue: one seam, [`TaskStore`], and two engines behind it.
//!
//! - [`task`]: what a task is, on its way in, while it runs, and for those who look; `state`, where it is, and `attempts`, who ran it
//! - [`queue`]: where tasks wait, and what may run of each
//! - [`event`]: the numbered record of how tasks ended
//! - [`error`]: what can go wrong, by what the caller should do about it
//! - [`sqlite`]: a file in a volume; the process that has it open owns every task in it
//! - [`postgres`]: a server that pods share; a task that waits is nobody's, one that runs is leased
//!
//! # Guarantees
//! - **Durable**: what [`TaskStore::submit`] answered Ok is on disk, and runs at least once, or is cancelled.
//! - **Fenced**: of all attempts at a task one ends it. [`TaskStore::complete`] and [`TaskStore::renew`] answer
//!   `Lost` to an attempt that is no longer the task's own, and change nothing.
//! - **Recovered**: the tasks of a process that died are queued again: as SQLite's file is opened, and in PostgreSQL
//!   when the lease is over (within 10 s of the death). An attempt that was interrupted so costs none of those that the
//!   task may fail; interruptions are counted apart, and after ten of them the task is [`State::Dead`].
//! - **Kept apart**: a task that was interrupted three times is claimed by [`TaskStore::claim_suspect`] alone.
//! - **Counted without a hole**: [`Owned`] is told in the same step that changes it, before any caller learns of the
//!   change, so that a count of zero is a zero.
//! - **Numbered without a gap**: events are numbered 1, 2, 3 … in the order in which they can be read: who has seen
//!   number n never meets a lower one later.
//!
//! # Assumptions
//! - The disk keeps what it said it had synced, and one process at a time has a SQLite file open (a lock sees to it).
//! - PostgreSQL's clock is the only one that leases are measured by.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

mod attempts;
mod backoff;
pub mod error;
pub mod event;

mod interruption;
mod page;
pub mod postgres;
pub mod queue;
mod room;
pub mod sqlite;
mod state;
pub mod task;

pub use error::{OpenError, StoreError, Unavailable};
pub use event::{Event, Events};
pub use interruption::MOST as MOST_INTERRUPTIONS;
pub use queue::{
    Backoff, DEFAULT_QUEUE, MOST_QUEUES, QueueCounts, QueuePut, QueueRecord, QueueRemoved, QueueSettings,
    Rate,
};
pub use task::{
    Attempt, Cancelled, Change, Changed, Claim, Completion, Counts, Cursor, Delayed, Filter, Found, Held,
    Hold, Idempotency, Lease, Millis, NewTask, Outcome, Owned, Page, Retried, State, Submitted, TaskRecord,
};

/// What both engines need to know as they are opened.
#[derive(Clone)]
pub struct StoreSettings {
    /// Who claims: the pod's name and an id that is new for each start, so that a restarted process never takes its
    /// own past for itself.
    pub owner: String,
    /// Tasks that may wait; past it [`StoreError::Full`]. A shared queue's count is up to a second old.
    pub capacity: u64,
    /// The kinds of task that this process can run. Of a shared queue it claims no other.
    pub kinds: Vec<String>,
    /// Events are kept this long.
    pub keep_events: Duration,
    /// Interruptions after which a task is a dead letter: [`MOST_INTERRUPTIONS`], unless somebody knows better.
    pub max_interruptions: u16,
    /// How long dead letters are kept whose task does not say.
    pub keep_dead: Duration,
    /// Told how much this process owns, each time that changes.
    pub owned: OwnedWatch,
    /// Told of tasks that have become dead letters since their processes died too often, by whoever finds them dead.
    /// Those that an attempt ends are its caller's to count ([`Completion`]).
    pub letters: LettersWatch,
}

/// Called with the kind of each; there is at least one.
pub type LettersWatch = Arc<dyn Fn(&[String]) + Send + Sync>;

/// Called under the store's own order, so it must be quick and must not call back.
pub type OwnedWatch = Arc<dyn Fn(Owned) + Send + Sync>;

/// A durable queue of tasks. All futures may be dropped at any time: what was begun is then ended or undone.
#[async_trait]
pub trait TaskStore: Debug + Send + Sync + 'static {
    /// Puts a task on disk. `hold` is let go once the task is counted in [`Owned`], or is known not to have been taken.
    async fn submit(&self, task: NewTask, hold: Hold) -> Result<Submitted, StoreError>;

    /// Puts tasks on disk, all in one go, and answers for each, in their order. Those that are refused cost the others nothing.
    async fn submit_many(
        &self,
        tasks: Vec<NewTask>,
        hold: Hold,
    ) -> Result<Vec<Result<Submitted, StoreError>>, StoreError>;

    /// Takes up to `most` tasks to run, of those that are due and that their queues let start now: of each queue its fair part (see
    /// [`queue`]), of a key the highest priority first, then the oldest. Waits until there is at least one. Those that have to run
    /// alone are not among them.
    async fn claim(&self, most: usize) -> Result<Vec<Claim>, StoreError>;

    /// Whether a task is due that was interrupted so often that it has to run alone.
    async fn suspect_is_due(&self) -> Result<bool, StoreError>;

    /// Takes one such task, if one is due; the caller runs nothing beside it.
    async fn claim_suspect(&self) -> Result<Option<Claim>, StoreError>;

    /// Keeps claimed tasks; to be called every [`TaskStore::renew_every`] for all that run. The answers are in the order
    /// of the leases.
    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Held>, StoreError>;

    /// How often to renew. None where a claim cannot be lost.
    fn renew_every(&self) -> Option<Duration>;

    /// Writes down how far a running task is: any JSON, as text.
    async fn progress(&self, lease: Lease, progress: String) -> Result<Held, StoreError>;

    /// Ends an attempt.
    async fn complete(&self, lease: Lease, outcome: Outcome) -> Result<Completion, StoreError>;

    /// Cancels a task that waits; asks the one who runs it to stop if it runs.
    async fn cancel(&self, id: Uuid) -> Result<Cancelled, StoreError>;

    /// Queues a dead or cancelled task again, with all its attempts before it. `hold` is as in [`TaskStore::submit`].
    async fn retry(&self, id: Uuid, hold: Hold) -> Result<Retried, StoreError>;

    /// Looks a task up by its id, with its attempts.
    async fn get(&self, id: Uuid) -> Result<Option<TaskRecord>, StoreError>;

    /// Tasks, the newest first; at most `limit` of them, and fewer when they are large or few match, from `after` on. Whoever goes on
    /// from [`Page::next`] until it is None gets all. The other calls do not wait for it.
    async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Page, StoreError>;

    /// The ids of the tasks that [`TaskStore::list`] would tell of: the newest first, at most `limit`.
    async fn find(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<Found, StoreError>;

    /// Does the same to many tasks, all in one go: to those that it fits as they are by now. `hold` is as in [`TaskStore::submit`].
    async fn change(&self, ids: Vec<Uuid>, change: Change, hold: Hold) -> Result<Changed, StoreError>;

    /// How many there are in the whole queue. May be up to a second old.
    async fn counts(&self) -> Result<Counts, StoreError>;

    /// Makes a queue, or gives it other settings.
    async fn put_queue(&self, name: &str, settings: QueueSettings) -> Result<QueuePut, StoreError>;

    /// Pauses a queue, or lets it go on; whether there is such a queue. Of a paused queue nothing is started; what runs goes on.
    async fn pause_queue(&self, name: &str, paused: bool) -> Result<bool, StoreError>;

    /// Removes a queue in which nothing waits or runs. Not [`DEFAULT_QUEUE`], which is in use whatever is in it.
    async fn remove_queue(&self, name: &str) -> Result<QueueRemoved, StoreError>;

    /// All queues, by name, and what is in them. The counts may be up to a second old, the rest is not.
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError>;

    /// A queue's settings, as far as this process knows without asking: what other processes change it hears within seconds.
    fn queue_settings(&self, name: &str) -> Option<QueueSettings>;

    /// Events numbered above `after`, in order, at most `limit`.
    async fn events(&self, after: u64, limit: usize) -> Result<Events, StoreError>;

    /// The highest number of any event; changes as events come.
    fn head(&self) -> watch::Receiver<u64>;

    /// Names this queue's numbering; it is another one for another file or database.
    fn stream(&self) -> &str;

    /// Attempts that someone wants to stop. A hint that comes at once and may be missed ([`Held::CancelRequested`] tells it
    /// again), or come late: the task may have been retried since, and a later attempt is none that was to stop.
    fn cancellations(&self) -> broadcast::Receiver<Lease>;

    /// To be called every second: queues orphans again, forgets what is past its time, looks at the clock.
    async fn maintain(&self) -> Result<(), StoreError>;

    /// Whether tasks that wait are this process's own (in its volume), or the cluster's.
    fn shared(&self) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than anything takes that does not wait for somebody.
    pub(crate) const LONG: Duration = Duration::from_secs(30);

    /// One process's, for the tests of an engine's inside; those of its promises are in `tests/conformance`.
    pub(crate) fn settings() -> StoreSettings {
        StoreSettings {
            owner: Uuid::new_v4().to_string(),
            capacity: 1_000_000,
            kinds: vec!["sleep".to_owned()],
            keep_events: Duration::from_secs(3600),
            max_interruptions: MOST_INTERRUPTIONS.get(),
            keep_dead: Duration::from_secs(3600),
            owned: Arc::new(|_| {}),
            letters: Arc::new(|_| {}),
        }
    }

    pub(crate) fn task() -> NewTask {
        NewTask {
            id: Uuid::now_v7(),
            kind: "sleep".to_owned(),
            input: "{}".to_owned(),
            client_id: None,
            queue: DEFAULT_QUEUE.to_owned(),
            concurrency_key: None,
            priority: 0,
            delay: Duration::ZERO,
            timeout: None,
            max_attempts: 3,
            keep: Duration::from_secs(3600),
            keep_dead: None,
            idempotency: None,
            trace: None,
        }
    }

    /// What a task goes through, each step done: whoever lists meanwhile, nobody here waits for them.
    pub(crate) async fn all_but_lists(store: &impl TaskStore) {
        let task = task();
        let id = task.id;
        assert_eq!(store.submit(task, Hold::default()).await.unwrap(), Submitted::New);
        assert!(store.get(id).await.unwrap().is_some());
        assert!(matches!(store.cancel(id).await.unwrap(), Cancelled::Now(_)));
        assert!(matches!(store.retry(id, Hold::default()).await.unwrap(), Retried::Now(_)));
        assert_eq!(store.claim(1).await.unwrap().len(), 1);
        assert_eq!(store.events(0, 1).await.unwrap().events.len(), 1);
    }
}
