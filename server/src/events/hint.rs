//! Hints: what happens to a task before it ends, for those who watch this pod just now. They have no number and are not
//! kept; what must not be missed is a [`graceful_store::Event`].

use uuid::Uuid;

/// Something happened to a task on this pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The id of the task.
    pub task_id: Uuid,
    /// The task's kind.
    pub kind: String,
    /// The client that submitted it, if it gave a name.
    pub client_id: Option<String>,
    /// What happened to it.
    pub what: What,
}

/// What can happen to a task before it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The task was accepted here.
    Queued,
    /// An attempt began here.
    Started {
        /// 1 for the first.
        attempt: u16,
    },
    /// The attempt said how far it is.
    Progress {
        /// The attempt that said it.
        attempt: u16,
        /// JSON text, as the handler gave it.
        progress: String,
    },
    /// The attempt failed, and there will be another.
    Retrying {
        /// The attempt that failed.
        attempt: u16,
        /// Why the attempt failed.
        error: String,
        /// In how many milliseconds.
        in_millis: u64,
    },
}
