//! Runs what the queue holds: so many at a time, each at least once.
//!
//! - [`mod@attempt`]: one attempt at one task, from its claim to its end
//! - [`leases`]: which attempts run; renews them and tells them to stop
//! - [`suspects`]: those that may have killed their processes run alone
//!
//! # Flow
//! A free place → claim → the handler runs → its end is reported (`--report-url`) → and written down → the place is free.
//!
//! # Guarantees
//! - A task keeps its place, its lease and its count in flight until its end is written down: a collector or a disk that
//!   is down slows the pod, fills the queue and so turns new work away, rather than piling up in memory.
//! - An attempt keeps its place and its count while anything of it runs, also when its time is over or its task lost.
//! - Of a shared queue a pod claims only while it serves; what a claim brings after that goes back at once.
//! - Its own queue it works off to the end, draining or not.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use graceful_drain::{Drain, State};
use graceful_store::{Claim, Outcome, TaskStore};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::events::hub::Hub;
use crate::kind::Kinds;
use crate::metrics::Metrics;
use crate::pauses::{self, Pauses};
use crate::queue::Queue;
use crate::report::Reporter;

mod attempt;
mod leases;
mod suspects;

use leases::Leases;

/// What is not in flight any more does not hold the exit for longer.
const SETTLE: Duration = Duration::from_secs(1);
/// An abort waits no longer than this for the database.
const HAND_BACK: Duration = Duration::from_secs(1);

/// What running tasks needs.
#[derive(Debug)]
pub struct Runner {
    queue: Arc<Queue>,
    kinds: Arc<Kinds>,
    drain: Drain,
    hub: Hub,
    reporter: Option<Reporter>,
    metrics: Arc<Metrics>,
    leases: Arc<Leases>,
    attempts: TaskTracker,
    /// A task is to run alone: nothing is claimed beside it.
    alone: watch::Sender<bool>,
}

impl Runner {
    /// A runner that runs nothing yet.
    #[must_use]
    pub fn new(
        queue: Arc<Queue>,
        kinds: Arc<Kinds>,
        drain: Drain,
        hub: Hub,
        reporter: Option<Reporter>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let leases = Leases::new(drain.clone());
        let attempts = TaskTracker::new();
        let alone = watch::Sender::new(false);
        Arc::new(Self { queue, kinds, drain, hub, reporter, metrics, leases, attempts, alone })
    }

    /// Runs tasks, `concurrency` at a time, for as long as the process lives.
    pub fn start(self: &Arc<Self>, concurrency: usize) {
        // As many as the largest semaphore and the widest request for all of it allow.
        let all = u32::try_from(concurrency.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        let places = Arc::new(Semaphore::new(all as usize));
        tokio::spawn(self.clone().work(places.clone()));
        tokio::spawn(self.clone().run_suspects(places, all));
        tokio::spawn(self.leases.clone().keep(self.queue.clone()));
    }

    async fn work(self: Arc<Self>, places: Arc<Semaphore>) {
        let mut pauses = Pauses::up_to(pauses::LONGEST);
        let mut alone = self.alone.subscribe();
        loop {
            let _ = alone.wait_for(|alone| !alone).await;
            let Ok(mut free) = places.clone().acquire_owned().await else { return };
            let store = self.queue.opened().await;
            self.may_claim(&store).await;
            let more = u32::try_from(places.available_permits()).unwrap_or(u32::MAX);
            if let Ok(more) = places.clone().try_acquire_many_owned(more) {
                free.merge(more);
            }
            let claimed = tokio::select! {
                claimed = store.claim(free.num_permits()) => claimed,
                () = self.must_stop(&store) => continue,
                () = async { let _ = alone.wait_for(|alone| *alone).await; } => continue,
            };
            self.queue.noticed(&claimed);
            match claimed {
                Ok(claims) if self.claims(&store) => {
                    pauses.over();
                    self.run(claims, free);
                }
                Ok(claims) => give_back(&store, claims).await,
                Err(error) => {
                    debug!(%error, "cannot claim tasks; retrying");
                    // Release the permits while backing off.
                    drop(free);
                    pauses.wait().await;
                }
            }
        }
    }

    fn run(self: &Arc<Self>, claims: Vec<Claim>, mut free: OwnedSemaphorePermit) {
        for claim in claims {
            // A store never claims more than it was asked for; if it did, the task would run without a place.
            let place = free.split(1);
            let runner = self.clone();
            self.attempts.spawn(async move {
                runner.attempt(claim).await;
                drop(place);
            });
        }
    }

    /// Whether this pod claims now: of a shared queue only while it serves.
    fn claims(&self, store: &Arc<dyn TaskStore>) -> bool {
        !store.shared() || self.drain.status().state == State::Serving
    }

    async fn may_claim(&self, store: &Arc<dyn TaskStore>) {
        if store.shared() {
            self.drain.wait_until(|status| status.state == State::Serving).await;
        }
    }

    /// Waits until a claim that waits has to be dropped.
    async fn must_stop(&self, store: &Arc<dyn TaskStore>) {
        let drains = async {
            if store.shared() {
                self.drain.wait_until(|status| status.state != State::Serving).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = drains => {}
            () = self.queue.replaced(store) => {}
        }
    }

    /// After the last task's end was written down, and nothing is in flight any more, its last log line may be due.
    pub async fn settled(&self) {
        self.attempts.close();
        if timeout(SETTLE, self.attempts.wait()).await.is_err() {
            warn!(attempts = self.attempts.len(), "cut attempts that had lost their task");
        }
    }

    /// An abort cuts what runs; where pods share the queue, others may have it at once.
    pub async fn hand_back(&self) {
        let Ok(store) = self.queue.store() else { return };
        if !store.shared() {
            return;
        }
        let leases = self.leases.all();
        let tasks = leases.len();
        let cut = || Outcome::Failed { error: "its pod was aborted".to_owned(), retry: Some(Duration::ZERO) };
        let given = join_all(leases.into_iter().map(|lease| store.complete(lease, cut())));
        match timeout(HAND_BACK, given).await {
            Ok(_) => info!(tasks, "what ran is queued again"),
            Err(_) => {
                warn!(
                    tasks,
                    "cannot give back what ran: the queue does not answer; it is queued again when its leases are over"
                );
            }
        }
    }
}

/// Claimed and not started: queued again. Until that is written down, or another pod has them, they are in flight here.
async fn give_back(store: &Arc<dyn TaskStore>, claims: Vec<Claim>) {
    join_all(claims.iter().map(|claim| async {
        let mut pauses = Pauses::up_to(pauses::LONGEST);
        while let Err(error) = store.complete(claim.lease, Outcome::Released).await {
            debug!(task_id = %claim.lease.id, %error, "cannot give a claimed task back; retrying");
            pauses.wait().await;
        }
    }))
    .await;
}
