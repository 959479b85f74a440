//! The machine's clock, kept from running backwards while the file is open.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::task::Millis;

/// Times that never decrease: what was once due stays due, and events are in the order of their times.
///
/// Where the machine's clock is set back (it had jumped ahead, say), ours goes on at half its speed until the other has caught
/// up: stopped until then, what is to come in a minute would come in an hour.
#[derive(Debug, Default)]
pub(super) struct Clock {
    latest: Millis,
    /// When `latest` was right, by a clock that nobody sets.
    at: Option<Instant>,
}

impl Clock {
    pub(super) fn now(&mut self) -> Millis {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
        self.tick(wall, Instant::now())
    }

    /// An hour ahead → it is right again after two hours, and one hour has passed on it meanwhile.
    fn tick(&mut self, wall: Millis, now: Instant) -> Millis {
        let at = self.at.unwrap_or(now);
        if wall >= self.latest {
            self.latest = wall;
            self.at = Some(now);
        } else {
            let half = millis(now.saturating_duration_since(at)) / 2;
            self.latest = self.latest.saturating_add(half);
            // What is left of the last two milliseconds counts the next time.
            self.at = Some(at + span(half) * 2);
        }
        self.latest
    }
}

/// A span in milliseconds; what is too long for the column is as good as for ever.
pub(super) fn millis(span: Duration) -> Millis {
    Millis::try_from(span.as_millis()).unwrap_or(Millis::MAX)
}

/// A span that a column holds.
pub(super) fn span(millis: Millis) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Millis = 3_600_000;

    #[test]
    fn a_clock_that_is_set_back_goes_on_until_the_other_has_caught_up() {
        let (mut clock, start) = (Clock::default(), Instant::now());
        let at = |millis: Millis| start + span(millis);
        assert_eq!(clock.tick(1_000, at(0)), 1_000);
        assert_eq!(clock.tick(HOUR, at(10)), HOUR, "it jumps ahead");
        let mut before = HOUR;
        // Each millisecond, as a busy queue asks: nothing is lost to rounding.
        for passed in 1..=2_001 {
            let now = clock.tick(1_010 + passed, at(10 + passed));
            assert!((before..=before + 1).contains(&now));
            before = now;
        }
        assert_eq!(before, HOUR + 1_000, "half of the time has passed on it");
        let caught_up = 2 * HOUR + 5_000;
        assert_eq!(clock.tick(caught_up, at(2 * HOUR)), caught_up, "then it is the machine's again");
    }
}
