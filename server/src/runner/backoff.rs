//! How long a failed task waits for its next attempt.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
/// No pause is longer.
pub const LONGEST: Duration = Duration::from_secs(300);

/// The pause after the failure of `attempt` (1 for the first): a second, doubled each time up to five minutes, and by
/// `die` (from 0 to 1) up to a quarter shorter or longer, so that many that failed together don't come back together.
///
/// Ten attempts, the default, wait 1 + 2 + 4 + … + 256 s, between six and eleven minutes in all: that outlasts the restart
/// of whatever the handler needs, and no more.
#[must_use]
pub fn pause(attempt: u16, die: f64) -> Duration {
    let doublings = u32::from(attempt.saturating_sub(1)).min(16);
    let even = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    even.mul_f64(0.75 + 0.5 * die.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_second_to_five_minutes() {
        let even: Vec<_> = (1..=11).map(|attempt| pause(attempt, 0.5).as_secs()).collect();
        assert_eq!(even, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(pause(u16::MAX, 0.5), LONGEST, "no attempt is too many");
        assert_eq!(pause(0, 0.5), FIRST);
    }

    #[test]
    fn the_die_moves_a_pause_by_a_quarter_at_most() {
        assert_eq!((pause(3, 0.0), pause(3, 1.0)), (Duration::from_secs(3), Duration::from_secs(5)));
        assert_eq!(pause(3, 9.0), Duration::from_secs(5));
    }
}
