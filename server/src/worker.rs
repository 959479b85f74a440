//! Takes tasks off the queue and runs them, so many at a time.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::config::TaskSeconds;
use crate::events::hub::Hub;
use crate::metrics::Metrics;
use crate::queue::{Claimed, Queue};
use crate::report::{Outcome, Reporter};

/// What running a task needs.
#[derive(Debug, Clone)]
pub struct Worker {
    /// How long a task takes.
    pub task_seconds: TaskSeconds,
    /// Where clients are told.
    pub hub: Hub,
    /// Where the collector is told, if there is one.
    pub reporter: Option<Reporter>,
    /// What Prometheus is told.
    pub metrics: Arc<Metrics>,
}

impl Worker {
    /// Runs tasks from `queue`, `concurrency` at a time, for as long as the process lives.
    pub async fn work(self, queue: Arc<Queue>, concurrency: usize) {
        let places = Arc::new(Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS)));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let task = queue.next().await;
            let worker = self.clone();
            // A task of its own each: a panic costs that task and its place comes back.
            tokio::spawn(async move {
                worker.run(task).await;
                drop(place);
            });
        }
    }

    /// A task keeps its place and stays in flight until its report went through: a collector that is down slows the
    /// pod, fills the queue and so turns new work away, rather than piling up reports.
    async fn run(&self, task: Claimed) {
        let started = Instant::now();
        sleep(self.task_seconds.draw()).await;
        let ran = started.elapsed();
        task.finish();
        self.hub.task_ended(task.id);
        self.metrics.finished(task.waited, ran);
        info!(task_id = %task.id, waited_seconds = task.waited.as_secs_f64(), ran_seconds = ran.as_secs_f64(), "processed");
        if let Some(reporter) = &self.reporter {
            reporter.report(task.id, Outcome::Processed).await;
        }
    }
}
