//! The moment that a plan is made for, and the next one at which it may turn out otherwise.
//!
//! # Guarantees
//! A rule that compares a moment with now asks [`Clock::has_come`], and the clock remembers what is still to come: so no such rule can forget to have the plan
//! made again in time. Ages and batch limits call [`Clock::wake_in`] themselves.

use std::cell::Cell;

use jiff::{SignedDuration, Timestamp, TimestampArithmetic};

/// The moment so much later. A time from a user's annotation may be the last there is.
pub(crate) fn after(at: Timestamp, time: impl Into<TimestampArithmetic>) -> Timestamp {
    at.saturating_add(time).unwrap_or(Timestamp::MAX)
}

/// So many seconds.
pub(crate) fn seconds(n: u32) -> SignedDuration {
    SignedDuration::from_secs(i64::from(n))
}

/// The moment that a plan is made for, and the first later one that it asked about.
#[derive(Debug)]
pub(crate) struct Clock {
    now: Timestamp,
    next: Cell<Option<Timestamp>>,
}

impl Clock {
    pub(crate) fn at(now: Timestamp) -> Self {
        Self { now, next: Cell::new(None) }
    }

    /// The moment of this plan, for what is written down. To compare with it, ask [`has_come`](Self::has_come).
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Returns whether this moment has come. If it has not, the plan is made again when it has.
    pub(crate) fn has_come(&self, moment: Timestamp) -> bool {
        if moment <= self.now {
            return true;
        }
        self.next.set(Some(self.next.get().map_or(moment, |next| next.min(moment))));
        false
    }

    /// Has the plan made again after this time at the latest.
    pub(crate) fn wake_in(&self, time: SignedDuration) {
        self.has_come(after(self.now, time));
    }

    /// The first moment that was asked for and has not come.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.next.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_moment_to_come_is_the_next() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let clock = Clock::at(at(10));
        assert_eq!((clock.has_come(at(9)), clock.has_come(at(10)), clock.next()), (true, true, None));
        assert_eq!(
            (clock.has_come(at(30)), clock.has_come(at(20)), clock.has_come(at(40))),
            (false, false, false)
        );
        assert_eq!(clock.next(), Some(at(20)));
        clock.wake_in(SignedDuration::from_secs(1));
        assert_eq!(clock.next(), Some(at(11)));
    }
}
