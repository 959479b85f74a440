//! Queues: tasks that wait together, and what they may take: places, starts a second, places for one key.
//!
//! # Guarantees
//! - **Durable**: a queue, its settings and whether it is paused are on disk, and hold for all processes that share it.
//! - **Fair**: a free place goes to the queue that has the fewest places of this process; among equals to the one that waited
//!   longest. Within a queue keys take turns in the same way; within a key the highest priority comes first, then the oldest.
//! - **Bounded**: no more of a queue run at once, start, or run of one key, than its settings say, whoever claims.
//!
//! # Caveats
//! - What runs is not taken from its place: a flood of long tasks that has all places keeps them until they end. Give such a
//!   queue a concurrency below the server's.
//! - SQLite's process is alone with its file, and so are its limits: with several pods each has its own.

use std::num::NonZeroU32;
use std::time::Duration;

pub use crate::backoff::Backoff;
use crate::task::Millis;

/// The queue of tasks that name none. It is always there.
pub const DEFAULT_QUEUE: &str = "default";

/// Queues that there may be. Each claim asks those that have something due: some microseconds for each.
pub const MOST_QUEUES: usize = 500;

/// What a queue's tasks may take; what is None is not bounded.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct QueueSettings {
    /// Tasks of it that run at once.
    pub concurrency: Option<NonZeroU32>,
    /// Tasks of one key that run at once. Those without a key are not bounded by it.
    pub per_key: Option<NonZeroU32>,
    /// How often they are started.
    pub rate: Option<Rate>,
    /// How often a task may be started that does not say so itself.
    pub max_attempts: Option<u16>,
    /// How long a task waits after a failure.
    pub backoff: Option<Backoff>,
}

impl QueueSettings {
    /// Whether who claims has to count first.
    pub(crate) fn bounded(&self) -> bool {
        self.concurrency.is_some() || self.per_key.is_some() || self.rate.is_some()
    }
}

/// A bucket of starts: each start takes one out, and so many come in a second until it is full.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Starts a second, above 0.
    pub per_second: f64,
    /// How many the bucket holds: so many may start at once after a rest.
    pub burst: NonZeroU32,
}

impl Rate {
    /// What the bucket holds some milliseconds after it held `tokens`.
    pub(crate) fn filled(&self, tokens: f64, passed: Millis) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "years of milliseconds are exact")]
        let passed = passed.max(0) as f64;
        (tokens + passed * self.per_second / 1000.0).min(f64::from(self.burst.get()))
    }

    /// In how many milliseconds it holds a start, rounded up.
    pub(crate) fn until_one(&self, tokens: f64) -> Millis {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a float that is too large becomes the largest number"
        )]
        let millis = ((1.0 - tokens).max(0.0) * 1000.0 / self.per_second).ceil() as Millis;
        millis
    }
}

/// A queue as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueRecord {
    /// Its name.
    pub name: String,
    /// What its tasks may take.
    pub settings: QueueSettings,
    /// None of it is started.
    pub paused: bool,
    /// What is in it.
    pub counts: QueueCounts,
}

/// What is in one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Waiting, and due.
    pub queued: u64,
    /// Waiting for their time, or for their next attempt.
    pub delayed: u64,
    /// Tasks that an attempt runs.
    pub running: u64,
    /// How long the one has been due that has been due the longest, of those that wait.
    pub oldest: Option<Duration>,
}

/// What became of a queue's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueuePut {
    /// There was no such queue; now there is.
    New,
    /// The settings are those now; whether it is paused is as before.
    Changed,
    /// There are [`MOST_QUEUES`].
    TooMany,
}

/// What became of a wish to remove a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueRemoved {
    /// There is no such queue any more. Tasks of it that have ended are remembered as before.
    Now,
    /// Tasks wait or run in it: it stays.
    InUse,
    /// There is no such queue.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_by_its_rate_and_never_over_its_brim() {
        let rate = Rate { per_second: 0.5, burst: NonZeroU32::new(3).unwrap() };
        let filled = [0, 1000, 2000, 6000, 60_000].map(|passed| rate.filled(0.0, passed));
        assert_eq!(filled, [0.0, 0.5, 1.0, 3.0, 3.0]);
        assert_eq!(rate.filled(2.0, -5), 2.0, "a clock that is set back takes nothing away");
        assert_eq!([0.0, 0.25, 0.5, 1.0, 2.0].map(|tokens| rate.until_one(tokens)), [2000, 1500, 1000, 0, 0]);
    }
}
