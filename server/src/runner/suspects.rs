//! Suspects: tasks that were interrupted so often that they may be what killed their processes. Each runs alone, so that it
//! takes nobody with it if it does so again.
//!
//! # Flow
//! One is due → no more is claimed → what runs comes to its end → suspects run, one after the other, for a few seconds →
//! all is as before. A pod that has one waiting does nothing new meanwhile: long tasks make that long.

use std::sync::Arc;
use std::time::Duration;

use graceful_store::Claim;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, info};

use super::{Runner, give_back};

/// How often to look for one.
const LOOK: Duration = Duration::from_secs(1);

/// After so long others get their turn, though more suspects wait.
const TURN: Duration = Duration::from_secs(5);

impl Runner {
    /// Runs suspects for as long as the process lives. `all` is how many places there are.
    pub(super) async fn run_suspects(self: Arc<Self>, places: Arc<Semaphore>, all: u32) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            if !self.suspect_is_due().await {
                continue;
            }
            // The claimer lets go of the places that it waits with.
            self.alone.send_replace(true);
            tokio::select! {
                everything = places.clone().acquire_many_owned(all) => {
                    if everything.is_ok() {
                        self.take_turn().await;
                    }
                }
                // Another pod took it, it was cancelled, or the pod drains.
                () = self.no_suspect_is_due() => {}
            }
            self.alone.send_replace(false);
            // A turn is longer than LOOK: without this, the next look would be due at once, and `alone` true again before a claimer
            // has seen that it was false.
            look.reset();
        }
    }

    async fn take_turn(self: &Arc<Self>) {
        let begun = Instant::now();
        while begun.elapsed() < TURN
            && let Some(claim) = self.claim_suspect().await
        {
            info!(
                task_id = %claim.lease.id,
                attempt = claim.lease.attempt,
                "processes died while they ran this task; now it runs alone"
            );
            let runner = self.clone();
            // In the tracker, like all others; it ends with the process as they do.
            let _ = self.attempts.spawn(async move { runner.attempt(claim).await }).await;
        }
    }

    async fn claim_suspect(&self) -> Option<Claim> {
        let store = &self.queue.store().ok()?;
        let claimed = store.claim_suspect().await;
        self.queue.noticed(&claimed);
        match claimed {
            Ok(Some(claim)) if self.claims(store) => Some(claim),
            Ok(claim) => {
                give_back(store, claim.into_iter().collect()).await;
                None
            }
            Err(error) => {
                debug!(%error, "cannot claim a task that is to run alone; retrying");
                None
            }
        }
    }

    /// Whether there is one that this pod may run. The store is not kept: a damaged one could not be opened again.
    async fn suspect_is_due(&self) -> bool {
        let Ok(store) = self.queue.store() else { return false };
        if !self.claims(&store) {
            return false;
        }
        let due = store.suspect_is_due().await;
        self.queue.noticed(&due);
        due.unwrap_or(false)
    }

    async fn no_suspect_is_due(&self) {
        while self.suspect_is_due().await {
            sleep(LOOK).await;
        }
    }
}
