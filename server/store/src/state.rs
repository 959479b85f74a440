//! Where a task is.

use std::fmt;
use std::str::FromStr;

/// One of five, and a task is in one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The task waits: for a free place, for its time, or for its next attempt.
    Queued,
    /// Someone runs it.
    Running,
    /// The task was done.
    Succeeded,
    /// The task was given up: its last attempt failed, or failed for good (a dead letter).
    Dead,
    /// The task was called off.
    Cancelled,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Succeeded, Self::Dead, Self::Cancelled];

    /// The word on the wire and in the tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// Nothing will happen to it any more, unless it is retried by hand.
    #[must_use]
    pub const fn ended(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Dead | Self::Cancelled => true,
        }
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            format!("`{text}` is no state; write one of {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
