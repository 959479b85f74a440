//! Asks the queue for its figures now and then, for the metrics to tell: no scrape asks it.

use std::sync::Arc;
use std::time::Duration;

use graceful_store::StoreError;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Queue;
use crate::metrics::Figures;

/// Between two looks at the queue: often beside the quarter of a minute between scrapes, and seldom beside what else asks a database.
const EVERY: Duration = Duration::from_secs(2);
/// Looks at the queue for as long as the process lives. A look that takes long is waited for: a database that hangs is not asked
/// again meanwhile, and the figures grow old.
pub(super) async fn keep(queue: Arc<Queue>) {
    queue.opened().await;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let at = Instant::now();
        let figures = figures(&queue).await.ok();
        queue.metrics().sampled(at, figures);
    }
}

async fn figures(queue: &Queue) -> Result<Figures, StoreError> {
    let counts = queue.counts().await?;
    let queues = queue.store()?.queues().await?;
    Ok(Figures { counts, queues })
}
