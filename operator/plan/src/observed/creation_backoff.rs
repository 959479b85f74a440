//! Revisions whose pods come to nothing, as they are seen. `crate::creation_backoff` counts them, and says what is made of them.

use jiff::Timestamp;

/// The rejected pods of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// How many pods have ended.
    pub pods: u32,
    /// When the last of them was made.
    pub last: Timestamp,
    /// Its name, and why it was not taken.
    pub words: String,
}

/// A revision of which no pod has come for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent {
    /// When one more may be asked for.
    pub until: Timestamp,
}
