//! Pauses that grow: twice as long each time, up to a longest.

use std::time::Duration;

/// A pause that doubles with each failure.
///
/// ```
/// use std::time::Duration;
/// use graceful_plan::Doubling;
///
/// let retry = Doubling { first: Duration::from_secs(5), longest: Duration::from_secs(60) };
/// assert_eq!([0, 1, 2, 3, 4].map(|failures| retry.after(failures).as_secs()), [5, 10, 20, 40, 60]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubling {
    /// The pause after the first failure.
    pub first: Duration,
    /// The pause that no later one exceeds.
    pub longest: Duration,
}

impl Doubling {
    /// Returns the pause after one more failure, where there were so many before.
    pub fn after(self, failures: u32) -> Duration {
        self.first.saturating_mul(1 << failures.min(16)).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_stays_at_the_longest() {
        let retry = Doubling { first: Duration::from_secs(5), longest: Duration::from_secs(60) };
        assert_eq!([5, 16, 17, u32::MAX].map(|n| retry.after(n).as_secs()), [60; 4]);
    }
}
