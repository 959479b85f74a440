//! Pauses that grow: twice as long each time, up to a longest.

use std::time::Duration;

/// The pause after so many failures before: `first`, then twice as long each time, at most `longest`.
pub fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_the_longest() {
        let pause = |times| doubled(Duration::from_secs(5), times, Duration::from_secs(60)).as_secs();
        assert_eq!([0, 1, 2, 3, 4, u32::MAX].map(pause), [5, 10, 20, 40, 60, 60]);
    }
}
