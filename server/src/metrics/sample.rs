//! [`Samples`]: the queue's figures as they were a moment ago. A scrape reads these and asks nobody: a database that hangs would
//! else silence the very metrics that tell of it.

use std::sync::Arc;
use std::time::Duration;

use graceful_store::{Counts, QueueRecord};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Older figures are told no more, for they would be a lie. A database has 5 s for an answer: one that takes most of them is
/// slow, and still tells the truth.
const STALE: Duration = Duration::from_secs(10);

/// How much there is in the queue.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// In all of it.
    pub counts: Counts,
    /// In each queue.
    pub queues: Vec<QueueRecord>,
}

/// The latest figures, and when they were asked for.
#[derive(Debug, Default)]
pub(super) struct Samples(Mutex<Latest>);

#[derive(Debug, Clone)]
struct Latest {
    /// None while the queue cannot be read.
    figures: Option<Arc<Figures>>,
    /// When the queue was asked that answered last, or the process began.
    at: Instant,
}

impl Default for Latest {
    fn default() -> Self {
        Self { figures: None, at: Instant::now() }
    }
}

impl Samples {
    /// None: the queue cannot be read.
    pub(super) fn took(&self, at: Instant, figures: Option<Figures>) {
        let mut latest = self.0.lock();
        if figures.is_some() {
            latest.at = at;
        }
        latest.figures = figures.map(Arc::new);
    }

    /// The figures, unless they are too old; and how old they are, or would be.
    pub(super) fn latest(&self) -> (Option<Arc<Figures>>, Duration) {
        let Latest { figures, at } = self.0.lock().clone();
        let age = at.elapsed();
        (figures.filter(|_| age < STALE), age)
    }
}
