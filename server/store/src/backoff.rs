//! Pauses between a task's attempts, as its queue or the task itself asks for them.

use std::time::Duration;

/// Pauses after failures: each twice as long as the one before, up to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
}
