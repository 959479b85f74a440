//! Asks the queue for its figures now and then, for the metrics to tell: no scrape asks it.

use std::sync::Arc;
use std::time::Duration;

use graceful_store::{QueueRecord, StoreError};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::Queue;

/// Between two looks at the queue: often beside the quarter of a minute between scrapes, and seldom beside what else asks a database.
const EVERY: Duration = Duration::from_secs(2);

/// Looks at the queue for as long as the process lives: at how much is in it, and apart from that at each queue by itself, so that
/// where only the latter fails or is slow, the queue is not told to be down. A look that takes long is waited for: a database that
/// hangs is not asked again meanwhile, and the figures grow old.
pub(super) async fn keep(queue: Arc<Queue>) {
    queue.opened().await;
    tokio::join!(count(&queue), list(&queue));
}

async fn count(queue: &Queue) {
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let at = Instant::now();
        let counts = queue.counts().await.ok();
        queue.metrics().counted(at, counts);
    }
}

async fn list(queue: &Queue) {
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let at = Instant::now();
        let queues = queues(queue).await.ok();
        queue.metrics().listed(at, queues);
    }
}

fn ticks() -> Interval {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn queues(queue: &Queue) -> Result<Vec<QueueRecord>, StoreError> {
    let answer = queue.store()?.queues().await;
    queue.noticed(&answer);
    answer
}
