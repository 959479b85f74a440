//! The global rate cap on questions that no decision waits for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Fifty a second: a thousand serving pods are surveyed within the half minute, at a cost nobody sees.
const SPACING: Duration = Duration::from_millis(20);

/// Hands out turns, one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace(Arc<Mutex<Option<Instant>>>);

impl Pace {
    /// Waits for this question's turn.
    pub(crate) async fn turn(&self) {
        let mut last = self.0.lock().await;
        let now = Instant::now();
        let turn = last.map_or(now, |last| now.max(last + SPACING));
        // Held while waiting: turns are given in the order they are asked for, and one that is given up costs nothing.
        sleep_until(turn).await;
        *last = Some(turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_are_spaced() {
        let (pace, start) = (Pace::default(), Instant::now());
        for _ in 0..51 {
            pace.turn().await;
        }
        assert_eq!(start.elapsed(), 50 * SPACING);
    }
}
