//! [`Pauses`]: the waits between tries at something that must succeed in the end.

use std::time::Duration;

use tokio::time::sleep;

/// What comes back is found soon: the first pause is not noticed.
const FIRST: Duration = Duration::from_millis(100);
/// A database that comes back is found within two seconds, and one that stays away is not hammered.
pub(crate) const LONGEST: Duration = Duration::from_secs(2);

/// Each pause is twice as long as the one before, up to the longest, and by chance up to a quarter longer than that: what
/// failed together does not come back together.
#[derive(Debug)]
pub(crate) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { next: FIRST, longest }
    }

    /// How long the next one is, without what chance adds.
    pub(crate) fn next(&self) -> Duration {
        self.next
    }

    /// Whether there was none yet: this trouble is new.
    pub(crate) fn is_first(&self) -> bool {
        self.next == FIRST
    }

    pub(crate) async fn wait(&mut self) {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        sleep(pause.mul_f64(rand::random_range(1.0..1.25))).await;
    }

    /// Notes that all went well: the next trouble is another one.
    pub(crate) fn over(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_the_longest_and_begin_anew() {
        let mut pauses = Pauses::up_to(Duration::from_secs(1));
        assert!(pauses.is_first());
        for even in [100, 200, 400, 800, 1000, 1000] {
            assert_eq!(pauses.next(), Duration::from_millis(even));
            let begun = Instant::now();
            pauses.wait().await;
            let waited = begun.elapsed().as_millis();
            // tokio's timer rounds up to a millisecond.
            assert!((even.into()..=u128::from(even) * 5 / 4 + 1).contains(&waited), "{even}: {waited}");
            assert!(!pauses.is_first());
        }
        pauses.over();
        assert!(pauses.is_first());
    }
}
