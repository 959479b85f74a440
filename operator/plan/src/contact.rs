//! What a pod has said, as far as this operator process remembers. Lost with the process, and asked again.

use jiff::Timestamp;

use crate::observed::Epoch;

/// One pod's side of the conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contact {
    /// The last valid answer; kept when later attempts fail, with its age.
    pub answer: Option<Answer>,
    /// When the last attempt ended, well or not.
    pub asked: Option<Timestamp>,
    /// Since when the pod has been in `Conversation::Ask`, while it is: a later `asked` is an answer to that.
    pub asking_since: Option<Timestamp>,
    /// What the last attempt met, where it failed; cleared by a valid answer.
    pub error: Option<ContactError>,
    /// The run of zeros that still holds, since the pod was unrouted in that epoch (signals Sigterm and None).
    pub quiet: Option<Quiet>,
    /// The app's container was restarted under us: how often, and its last known in-flight count before the last time.
    pub restarted: Option<Restarted>,
}

/// A valid answer in the revision's own language.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// When it came.
    pub at: Timestamp,
    /// What is in flight.
    pub in_flight: InFlight,
    /// What only the Graceful protocol says.
    pub protocol: Option<Protocol>,
}

/// The part of an answer that only the Graceful protocol has. `probe` has checked that it came from the asked pod's uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// The last epoch the pod has seen.
    pub epoch: Epoch,
    /// Whether it takes new work.
    pub accepting: bool,
    /// Whether it can still be put back to serving; false after SIGTERM.
    pub resumable: bool,
}

/// In-flight counts, in things the app counts (tasks, requests). Only the Graceful protocol tells the kinds apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// All of it.
    pub total: u64,
    /// Accepted, not begun.
    pub queued: u64,
    /// Begun.
    pub running: u64,
    /// Requests being answered.
    pub requests: u64,
}

/// A failed attempt: the class for a metric, and a sentence for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContactError {
    /// A short fixed word: `refused`, `timeout`, `reset`, `status`, `too_large`, `not_json`, `not_a_count`, …
    pub class: String,
    /// What happened and what to do about it.
    pub message: String,
    /// Since when attempts fail without a valid answer between them.
    pub since: Timestamp,
}

/// Zeros in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// The drain they were read in.
    pub epoch: Epoch,
    /// The first of them.
    pub since: Timestamp,
    /// The last of them.
    pub until: Timestamp,
    /// How many.
    pub reads: u32,
}

/// A restart in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restarted {
    /// How many boot ids have been replaced.
    pub times: u32,
    /// In flight at the last answer before the last restart: what it may have lost.
    pub last_known: u64,
}
