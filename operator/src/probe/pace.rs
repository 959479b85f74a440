//! A global rate cap: of questions that no decision waits for, and of marks on pods.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Fifty a second: a thousand serving pods are surveyed within the half minute, at a cost nobody sees.
pub(crate) const SURVEYS: Duration = Duration::from_millis(20);

/// Ten a second: each is a write.
pub(crate) const MARKS: Duration = Duration::from_millis(100);

/// Hands out turns, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    spacing: Duration,
    last: Arc<Mutex<Option<Instant>>>,
}

impl Pace {
    pub(crate) fn of(spacing: Duration) -> Self {
        Self { spacing, last: Arc::default() }
    }

    /// Waits for one's turn.
    pub(crate) async fn turn(&self) {
        let mut last = self.last.lock().await;
        let now = Instant::now();
        let turn = last.map_or(now, |last| now.max(last + self.spacing));
        // Held while waiting: turns are given in the order they are asked for, and one that is given up costs nothing.
        sleep_until(turn).await;
        *last = Some(turn);
    }
}

impl Pace {
    /// One's turn, if it is now: what can be done later waits for nobody.
    pub(crate) fn try_turn(&self) -> bool {
        let Ok(mut last) = self.last.try_lock() else { return false };
        let now = Instant::now();
        let turn = last.is_none_or(|last| last + self.spacing <= now);
        if turn {
            *last = Some(now);
        }
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_not_now_is_none() {
        let pace = Pace::of(MARKS);
        assert!(pace.try_turn());
        assert!(!pace.try_turn());
        tokio::time::advance(MARKS).await;
        assert!(pace.try_turn());
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_spaced() {
        let (pace, start) = (Pace::of(SURVEYS), Instant::now());
        for _ in 0..51 {
            pace.turn().await;
        }
        assert_eq!(start.elapsed(), 50 * SURVEYS);
    }
}
