//! What this process runs of the shared queue, counted before anyone can learn of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::lease::LEASE;
use crate::OwnedWatch;
use crate::task::{Lease, Owned};

/// Who runs a task renews it several times in each lease. What nobody here has renewed or tried to end for so long,
/// nobody here runs: it was given up in an outage, and is another's when the reapers come to it.
const UNTENDED: Duration = LEASE.saturating_mul(2);

/// The leases that this process holds.
pub(super) struct Running {
    watch: OwnedWatch,
    leases: Mutex<Attempts>,
}

#[derive(Default)]
struct Attempts {
    held: HashMap<Lease, Attempt>,
    /// Ends that were written after their callers had given up waiting: not counted, and known if they try again.
    unheard: HashMap<Lease, Instant>,
    /// Claims that the database was asked for and has not answered.
    asking: u64,
    told: u64,
}

#[derive(Clone)]
struct Attempt {
    /// The queue and the key that its place counts for.
    lane: Lane,
    /// When someone here last cared for it.
    tended: Instant,
    /// Whether it is unknown if its end was written.
    doubtful: bool,
}

/// A queue, and in it a key.
pub(super) type Lane = (Arc<str>, Arc<str>);

/// A claim under way. It counts as one task from before the database is asked: zero must be zero, and more than one
/// would make an idle pod look busy each time it looks for work.
pub(super) struct Asking {
    running: Arc<Running>,
    settled: bool,
}

impl Running {
    pub(super) fn new(watch: OwnedWatch) -> Arc<Self> {
        watch(Owned::default());
        Arc::new(Self { watch, leases: Mutex::default() })
    }

    pub(super) fn ask(self: &Arc<Self>) -> Asking {
        self.change(|leases| leases.asking += 1);
        Asking { running: self.clone(), settled: false }
    }

    /// How many run here of each queue's keys.
    pub(super) fn by_lane(&self) -> HashMap<Lane, usize> {
        let mut count = HashMap::new();
        for attempt in self.lock().held.values() {
            *count.entry(attempt.lane.clone()).or_default() += 1;
        }
        count
    }

    /// The queue of a task that runs here.
    pub(super) fn queue(&self, lease: Lease) -> Option<Arc<str>> {
        self.lock().held.get(&lease).map(|attempt| attempt.lane.0.clone())
    }

    /// It is this process's no longer.
    pub(super) fn ended(&self, lease: Lease) {
        self.change(|leases| {
            leases.unheard.remove(&lease);
            leases.held.remove(&lease)
        });
    }

    /// Nobody knows whether its end was written.
    pub(super) fn doubt(&self, lease: Lease) {
        if let Some(attempt) = self.lock().held.get_mut(&lease) {
            attempt.doubtful = true;
        }
    }

    pub(super) fn is_doubtful(&self, lease: Lease) -> bool {
        let leases = self.lock();
        leases.unheard.contains_key(&lease) || leases.held.get(&lease).is_some_and(|attempt| attempt.doubtful)
    }

    /// It ended, and nobody was there to hear it.
    pub(super) fn unheard(&self, lease: Lease) {
        self.lock().unheard.insert(lease, Instant::now());
    }

    /// Someone here cares for these.
    pub(super) fn tend(&self, leases: &[Lease]) {
        let (mut all, now) = (self.lock(), Instant::now());
        for lease in leases {
            if let Some(attempt) = all.held.get_mut(lease) {
                attempt.tended = now;
            }
        }
    }

    /// What nobody cares for is not counted any more.
    pub(super) fn forget_untended(&self) {
        let now = Instant::now();
        self.change(|leases| {
            leases.held.retain(|_, attempt| now - attempt.tended < UNTENDED);
            leases.unheard.retain(|_, ended| now - *ended < UNTENDED);
        });
    }

    /// Told under the lock, so that the watcher sees changes in their order.
    fn change<T>(&self, change: impl FnOnce(&mut Attempts) -> T) {
        let mut leases = self.lock();
        change(&mut leases);
        let running = leases.asking + leases.held.len() as u64;
        if running != leases.told {
            leases.told = running;
            (self.watch)(Owned { queued: 0, running, delayed: None });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Attempts> {
        self.leases.lock()
    }
}

impl Asking {
    /// The database has answered: these are ours.
    pub(super) fn settle(mut self, claimed: &[(Lease, Lane)]) {
        self.settled = true;
        self.running.change(|leases| {
            leases.asking -= 1;
            let now = Instant::now();
            let fresh = |lane: &Lane| Attempt { lane: lane.clone(), tended: now, doubtful: false };
            leases.held.extend(claimed.iter().map(|(lease, lane)| (*lease, fresh(lane))));
        });
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.settled {
            self.running.change(|leases| leases.asking -= 1);
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("told", &self.lock().told).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn of_default(lease: Lease) -> (Lease, Lane) {
        (lease, ("default".into(), "".into()))
    }

    #[test]
    fn a_claim_counts_from_before_it_is_asked_for_until_it_is_completed() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let ear = told.clone();
        let running = Running::new(Arc::new(move |owned| ear.lock().push(owned.running)));
        let leases = [1, 2, 3].map(|attempt| Lease { id: Uuid::nil(), attempt });
        running.ask().settle(&leases.map(of_default));
        drop(running.ask());
        for lease in leases {
            running.ended(lease);
            running.ended(lease);
        }
        assert_eq!(*told.lock(), [0, 1, 3, 4, 3, 2, 1, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_nobody_tends_is_not_counted_for_ever() {
        let running = Running::new(Arc::new(|_| {}));
        let [tended, left] = [1, 2].map(|attempt| Lease { id: Uuid::nil(), attempt });
        running.ask().settle(&[tended, left].map(of_default));
        running.doubt(left);
        for _ in 0..6 {
            assert!(running.is_doubtful(left));
            tokio::time::advance(Duration::from_secs(2)).await;
            running.tend(&[tended]);
            running.forget_untended();
        }
        assert!(!running.is_doubtful(left));
        assert_eq!(running.lock().told, 1);
    }
}
