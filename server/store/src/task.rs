//! A task: handed in, claimed, ended, looked at.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::backoff::Backoff;
pub use crate::state::State;

/// Milliseconds since 1970 on the clock of the queue (SQLite: this machine's; PostgreSQL: the server's).
pub type Millis = i64;

/// What a client hands in. Checked before it comes here.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    /// A version 7 uuid, so that ids are in the order of their coming.
    pub id: Uuid,
    /// Which handler runs it.
    pub kind: String,
    /// The handler's input: JSON text.
    pub input: String,
    /// The client that submitted it, if it gave a name.
    pub client_id: Option<String>,
    /// The queue that it waits in.
    pub queue: String,
    /// Whose turn it takes in its queue; tasks without one have a turn together.
    pub concurrency_key: Option<String>,
    /// Higher comes first.
    pub priority: i16,
    /// The task is not started before so much time has passed.
    pub delay: Duration,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// How often it may be started. An attempt whose process dies costs none.
    pub max_attempts: u16,
    /// How long it is remembered once it has ended.
    pub keep: Duration,
    /// How long, if it is dead then. None: as the queue's settings say.
    pub keep_dead: Option<Duration>,
    /// Makes a repeated submission the same task.
    pub idempotency: Option<Idempotency>,
    /// W3C `traceparent` of the request that brought it.
    pub trace: Option<String>,
}

/// A client's own name for a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key, as the client sent it.
    pub key: String,
    /// A digest of what was submitted under it: the same key with other content is a mistake.
    pub fingerprint: Vec<u8>,
    /// The digest that an older version made of it, for what that version stored.
    pub older: Option<Vec<u8>>,
}

impl Idempotency {
    /// Whether the content is that which was stored under this digest, by this version or an older one.
    pub(crate) fn is(&self, stored: &[u8]) -> bool {
        stored == self.fingerprint || self.older.as_deref() == Some(stored)
    }
}

/// Something to let go once a submission is decided: the guard of the request that brought it.
#[derive(Default)]
pub struct Hold(Option<Box<dyn Any + Send + Sync>>);

impl Hold {
    /// Holds a guard.
    pub fn new(guard: impl Any + Send + Sync) -> Self {
        Self(Some(Box::new(guard)))
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").field(&self.0.is_some()).finish()
    }
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted {
    /// There is a new task.
    New,
    /// The key's task, which was there before.
    Known(Box<TaskRecord>),
    /// The key belongs to a task with other content.
    KeyReused {
        /// The task that has the key.
        id: Uuid,
    },
    /// There is no queue of that name.
    NoQueue,
}

/// A task to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// What is renewed and completed.
    pub lease: Lease,
    /// Which handler runs it.
    pub kind: String,
    /// Its input: JSON text.
    pub input: String,
    /// The client that submitted it, if it gave a name.
    pub client_id: Option<String>,
    /// How long this attempt may take.
    pub timeout: Option<Duration>,
    /// How often it may be started; each attempt that was interrupted has added one.
    pub max_attempts: u16,
    /// The queue that it waited in.
    pub queue: Arc<str>,
    /// How long it waits after a failure, where its queue says so.
    pub backoff: Option<Backoff>,
    /// When it was handed in.
    pub created: Millis,
    /// How long it was due before it was claimed.
    pub waited: Duration,
    /// W3C `traceparent` of the request that brought it.
    pub trace: Option<String>,
}

/// One attempt at one task, by this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The id of the task.
    pub id: Uuid,
    /// 1 for the first attempt. It fences: an attempt that is no longer the task's latest is `Lost`.
    pub attempt: u16,
}

/// Whether an attempt still has its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The attempt still has its task.
    Yes,
    /// An attempt has it, and is asked to stop.
    CancelRequested,
    /// Another attempt has it, or it has ended.
    Lost,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Done; the handler's output as JSON text.
    Succeeded(String),
    /// Not done, for this reason. Tried again after `retry`, unless that is None or no attempt is left: then dead.
    Failed {
        /// What went wrong, for people.
        error: String,
        /// How long to wait before the next attempt.
        retry: Option<Duration>,
    },
    /// The attempt stopped because it was asked to.
    Cancelled,
    /// The attempt was never started (the process is going): queued again, and this attempt does not count.
    Released,
}

/// What [`crate::TaskStore::complete`] made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// The task is in this state now ([`State::Queued`]: there will be another attempt).
    Now(State),
    /// The attempt no longer had the task; nothing was changed.
    Lost,
}

/// What became of a wish to cancel.
#[derive(Debug, Clone, PartialEq)]
pub enum Cancelled {
    /// The task waited, and is cancelled.
    Now(Box<TaskRecord>),
    /// The task runs; the one who runs it has been asked to stop.
    Asked(Box<TaskRecord>),
    /// The task had ended before.
    TooLate(Box<TaskRecord>),
    /// There is no such task.
    Unknown,
}

/// What became of a wish to try again.
#[derive(Debug, Clone, PartialEq)]
pub enum Retried {
    /// The task is queued again.
    Now(Box<TaskRecord>),
    /// The task is neither dead nor cancelled.
    NotEnded(Box<TaskRecord>),
    /// Its queue was removed.
    NoQueue(Box<TaskRecord>),
    /// There is no such task.
    Unknown,
}

/// All that is known of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRecord {
    /// The task's id.
    pub id: Uuid,
    /// Which handler runs it.
    pub kind: String,
    /// Where it is.
    pub state: State,
    /// The client that submitted it, if it gave a name.
    pub client_id: Option<String>,
    /// The queue that it waits in, or waited in.
    pub queue: String,
    /// Whose turn it takes in its queue.
    pub concurrency_key: Option<String>,
    /// Higher comes first.
    pub priority: i16,
    /// Attempts started so far.
    pub attempt: u16,
    /// How often it may be started; each attempt that was interrupted has added one.
    pub max_attempts: u16,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// Its input: JSON text.
    pub input: String,
    /// Its output, once it has succeeded: JSON text.
    pub output: Option<String>,
    /// The last word of the attempt that runs: JSON text.
    pub progress: Option<String>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// When it was handed in.
    pub created: Millis,
    /// When it may start.
    pub due: Millis,
    /// When the latest attempt started.
    pub started: Option<Millis>,
    /// When it ended.
    pub ended: Option<Millis>,
    /// Someone wants it to stop.
    pub cancel_requested: bool,
    /// Its latest attempts, twenty at most, the oldest first. Only where one task is looked up.
    pub attempts: Option<Vec<Attempt>>,
}

/// One attempt at a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u16,
    /// The pod that ran it; None where that was not written down (an older server's).
    pub pod: Option<String>,
    /// When it began.
    pub started: Millis,
    /// When it ended, or was found to have ended with its process. None while it runs.
    pub ended: Option<Millis>,
    /// Why it failed; None while it runs, and of one that succeeded or was cancelled.
    pub error: Option<String>,
}

/// Which tasks to list; what is None does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In one of these states; none given: in any.
    pub states: Vec<State>,
    /// Of this kind.
    pub kind: Option<String>,
    /// Of this client.
    pub client_id: Option<String>,
    /// Of this queue.
    pub queue: Option<String>,
}

/// Where a page ended: the id of the last task that was looked at for it.
pub type Cursor = Uuid;

/// Some of the tasks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The newest first. May be empty though there are more: only so many tasks are looked through for one page.
    pub tasks: Vec<TaskRecord>,
    /// Where the next page begins; None at the end.
    pub next: Option<Cursor>,
}

/// The ids of some of the tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The newest first. May be empty though there are more, as in a [`Page`].
    pub ids: Vec<Uuid>,
    /// Where to go on; None at the end.
    pub next: Option<Cursor>,
}

/// What is done to many tasks; to each that it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// What waits is cancelled, what runs is asked to stop.
    Cancel,
    /// What is dead or cancelled is queued again, where its queue is there.
    Retry,
    /// What has ended is forgotten before its time.
    Delete,
}

impl Change {
    /// The states of tasks that it fits.
    #[must_use]
    pub const fn fits(self) -> &'static [State] {
        match self {
            Self::Cancel => &[State::Queued, State::Running],
            Self::Retry => &[State::Dead, State::Cancelled],
            Self::Delete => &[State::Succeeded, State::Dead, State::Cancelled],
        }
    }
}

/// How many tasks were changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// The tasks to which it was done.
    pub done: u64,
    /// The tasks that run, and were asked to stop.
    pub asked: u64,
}

/// The whole queue, whoever owns it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting, and due.
    pub queued: u64,
    /// Waiting for their time, or for their next attempt.
    pub delayed: u64,
    /// Tasks that an attempt runs.
    pub running: u64,
    /// Dead letters that are remembered.
    pub dead: u64,
}

/// What this process must see to the end before it may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owned {
    /// SQLite: all that wait, those whose time has not come included. PostgreSQL: none.
    pub queued: u64,
    /// Claimed and not completed.
    pub running: u64,
    /// SQLite: those of the waiting whose time has not come.
    pub delayed: Option<Delayed>,
}

/// Tasks that wait for a time of their own, or for their next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delayed {
    /// How many; at least one.
    pub tasks: u64,
    /// When the first of them is due.
    pub next: Millis,
}
