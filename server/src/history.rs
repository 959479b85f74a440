//! [`History`]: how much there was to do over the last hour, for a page that is opened after the fact. It is kept in memory, by
//! this process alone: what wants to look further back scrapes `/metrics`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use graceful_store::Counts;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use crate::events::hub::Hub;
use crate::queue::Queue;

/// Between two samples.
pub(crate) const EVERY: Duration = Duration::from_secs(10);
/// An hour of them, in some 20 KiB.
const KEPT: usize = 360;

/// The queue at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) at: Timestamp,
    pub(crate) counts: Counts,
    /// Tasks that have ended since the sample before; None where that is not known, as in the first one and after an outage.
    pub(crate) ended: Option<u64>,
}

/// The samples of the last hour, since this process began.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<Sample>>);

impl History {
    /// Samples the queue for as long as the process lives. While it cannot be read there is no sample.
    pub(crate) async fn keep(self: Arc<Self>, queue: Arc<Queue>, hub: Hub) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = None;
        loop {
            ticks.tick().await;
            // Ends are numbered without a gap, so that the numbers' difference is how many there were. Another stream has others.
            let now = hub.stream().map(|stream| (stream, hub.published()));
            match queue.counts().await {
                Ok(counts) => {
                    let ended = ended(before.as_ref(), now.as_ref());
                    self.add(Sample { at: Timestamp::now(), counts, ended });
                    before = now;
                }
                Err(_) => before = None,
            }
        }
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.0.lock();
        samples.push_back(sample);
        if samples.len() > KEPT {
            samples.pop_front();
        }
    }

    /// The oldest first.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.0.lock().iter().copied().collect()
    }
}

fn ended(before: Option<&(Arc<str>, u64)>, now: Option<&(Arc<str>, u64)>) -> Option<u64> {
    let ((stream, first), (same, last)) = before.zip(now)?;
    (stream == same).then(|| last.saturating_sub(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let history = History::default();
        let counts = Counts::default();
        for second in 0..2 * KEPT as i64 {
            history.add(Sample { at: Timestamp::from_second(second).unwrap(), counts, ended: None });
        }
        let samples = history.samples();
        assert_eq!(samples.len(), KEPT);
        assert_eq!(samples[0].at.as_second(), KEPT as i64);
    }

    #[test]
    fn ends_are_counted_within_one_stream_alone() {
        let at = |stream: &str, number| Some((Arc::from(stream), number));
        assert_eq!(ended(at("a", 3).as_ref(), at("a", 10).as_ref()), Some(7));
        assert_eq!(ended(at("a", 3).as_ref(), at("b", 10).as_ref()), None);
        assert_eq!(ended(None, at("a", 10).as_ref()), None);
    }
}
