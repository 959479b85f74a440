//! [`Tally`]: how many tasks this process has in flight: those that its queue counts, and work that goes on without it.
//!
//! The queue counts a task from before its claim is known until its end is written down. An attempt that lost its task
//! to another pod is no longer in that count, though a thread of it may run on, and a pod in which something runs is
//! not idle. So the running are never told to be fewer than the attempts that have something running.

use std::sync::Arc;

use graceful_drain::{Drain, Scheduled};
use graceful_store::{Delayed, Owned};
use jiff::Timestamp;
use parking_lot::Mutex;

/// Puts the counts together for the drain.
#[derive(Debug)]
pub(crate) struct Tally {
    drain: Drain,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    owned: Owned,
    /// Attempts of which something runs.
    alive: u64,
    /// The ones whose task the queue counts no more.
    orphaned: u64,
}

impl Counts {
    /// Whoever is alive is counted by the queue or orphaned. An attempt that the queue has just let go of and that does
    /// not know it yet is still alive: without the larger of both there would be a moment in which it is nowhere.
    fn running(&self) -> u64 {
        (self.owned.running + self.orphaned).max(self.alive)
    }
}

/// One attempt of which something runs; counted until its drop.
#[derive(Debug)]
pub(crate) struct Alive {
    tally: Arc<Tally>,
    orphaned: bool,
}

impl Tally {
    pub(crate) fn new(drain: Drain) -> Arc<Self> {
        Arc::new(Self { drain, counts: Mutex::default() })
    }

    /// The queue's own count.
    pub(crate) fn owned(&self, owned: Owned) {
        self.drain.set_scheduled(owned.delayed.and_then(scheduled));
        self.change(|counts| counts.owned = owned);
    }

    /// What the queue counted is left to another process: this one cannot reach it any more, and is to end.
    pub(crate) fn forsake(&self) -> Owned {
        let mut left = Owned::default();
        self.change(|counts| left = std::mem::take(&mut counts.owned));
        left
    }

    pub(crate) fn attempt(self: &Arc<Self>) -> Alive {
        self.change(|counts| counts.alive += 1);
        Alive { tally: self.clone(), orphaned: false }
    }

    /// Told under the lock, so that the drain hears of changes in their order.
    fn change(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.lock();
        change(&mut counts);
        self.drain.set_tasks(counts.owned.queued, counts.running());
    }
}

impl Alive {
    /// The queue counts its task no more.
    pub(crate) fn orphaned(&mut self) {
        if !std::mem::replace(&mut self.orphaned, true) {
            self.tally.change(|counts| counts.orphaned += 1);
        }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let orphaned = u64::from(self.orphaned);
        self.tally.change(|counts| {
            counts.alive -= 1;
            counts.orphaned -= orphaned;
        });
    }
}

/// A time that no calendar has is not told.
fn scheduled(Delayed { tasks, next }: Delayed) -> Option<Scheduled> {
    Some(Scheduled { tasks, next: Timestamp::from_millisecond(next).ok()? })
}

#[cfg(test)]
mod tests {
    use graceful_drain::Settings;

    use super::*;

    fn running(running: u64) -> Owned {
        Owned { running, ..Owned::default() }
    }

    #[test]
    fn an_attempt_counts_once_while_the_queue_counts_it_and_when_it_no_longer_does() {
        let drain = Drain::new(Settings::default());
        let tally = Tally::new(drain.clone());
        let told = || drain.status().in_flight.running;
        tally.owned(running(2));
        let (mut lost, kept) = (tally.attempt(), tally.attempt());
        assert_eq!(told(), 2);
        tally.owned(running(1));
        assert_eq!(told(), 2, "one is lost and does not know it");
        lost.orphaned();
        lost.orphaned();
        assert_eq!(told(), 2);
        tally.owned(running(2));
        assert_eq!(told(), 3, "a claim came whose attempt has not begun");
        drop(kept);
        tally.owned(running(0));
        assert_eq!(told(), 1);
        drop(lost);
        assert_eq!(told(), 0);
    }
}
