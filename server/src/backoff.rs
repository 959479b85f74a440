//! How long a failed task waits for its next attempt.

use std::time::Duration;

use graceful_store::Backoff;

/// Where a task's queue does not say.
pub const USUAL: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(300) };

/// The pause after the failure of `attempt` (1 for the first): the policy's first, doubled each time up to its longest, and by
/// `die` (from 0 to 1) up to a quarter shorter or longer, so that many that failed together don't come back together.
///
/// By the usual policy ten attempts, the default, wait 1 + 2 + 4 + … + 256 s, between six and eleven minutes in all: that outlasts the restart
/// of whatever the handler needs, and no more.
#[must_use]
pub fn pause(policy: Backoff, attempt: u16, die: f64) -> Duration {
    let Backoff { first, longest } = policy;
    let doublings = u32::from(attempt.saturating_sub(1)).min(16);
    let even = first.saturating_mul(1 << doublings).min(longest);
    even.mul_f64(0.75 + 0.5 * die.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_second_to_five_minutes() {
        let even: Vec<_> = (1..=11).map(|attempt| pause(USUAL, attempt, 0.5).as_secs()).collect();
        assert_eq!(even, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(pause(USUAL, u16::MAX, 0.5), USUAL.longest, "no attempt is too many");
        assert_eq!(pause(USUAL, 0, 0.5), USUAL.first);
        let quick = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(1) };
        assert_eq!([1, 3, 9].map(|attempt| pause(quick, attempt, 0.5).as_millis()), [100, 400, 1000]);
    }

    #[test]
    fn the_die_moves_a_pause_by_a_quarter_at_most() {
        assert_eq!(
            (pause(USUAL, 3, 0.0), pause(USUAL, 3, 1.0)),
            (Duration::from_secs(3), Duration::from_secs(5))
        );
        assert_eq!(pause(USUAL, 3, 9.0), Duration::from_secs(5));
    }
}
