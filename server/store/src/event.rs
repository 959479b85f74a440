//! The numbered record of how tasks ended: what clients catch up on when they come back.

use uuid::Uuid;

use crate::task::{Millis, State};

/// A task has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// 1, 2, 3 … within the queue's stream.
    pub number: u64,
    /// The id of the task that ended.
    pub task_id: Uuid,
    /// The task's kind.
    pub kind: String,
    /// The client that submitted it, if it gave a name.
    pub client_id: Option<String>,
    /// How it ended.
    pub state: State,
    /// In which attempt; 0 when it never ran.
    pub attempt: u16,
    /// Why it is dead.
    pub error: Option<String>,
    /// When it ended.
    pub at: Millis,
}

/// Some of the events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// In order, without a gap.
    pub events: Vec<Event>,
    /// The lowest number that is still kept: who asks for what lies below has missed something. The next number to
    /// come, when none is kept.
    pub oldest: u64,
}
