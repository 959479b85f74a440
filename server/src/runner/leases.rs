//! [`Leases`]: the attempts that this process runs just now, kept alive and told when to stop.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use graceful_drain::Drain;
use graceful_store::{Claim, Held, Lease, TaskStore};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use uuid::Uuid;

use crate::queue::Queue;

/// Where claims cannot be lost, all attempts are asked for now and then all the same: a cancellation may come between
/// the claim and the moment at which the attempt is entered here.
const NET: Duration = Duration::from_secs(2);

/// Why an attempt is to stop before its handler is done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    /// A client wants it to stop.
    pub(crate) cancel: CancellationToken,
    /// Another attempt has the task; this one is over.
    pub(crate) lost: CancellationToken,
}

#[derive(Debug)]
pub(crate) struct Leases {
    drain: Drain,
    running: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_id: HashMap<Uuid, Entry>,
    by_age: BTreeSet<(Instant, Uuid)>,
}

#[derive(Debug)]
struct Entry {
    lease: Lease,
    since: Instant,
    stop: Stop,
}

/// One attempt among the leases; leaves with its drop.
#[derive(Debug)]
pub(crate) struct Entered {
    leases: Arc<Leases>,
    lease: Lease,
    pub(crate) stop: Stop,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.leases.leave(self.lease);
    }
}

impl Leases {
    pub(crate) fn new(drain: Drain) -> Arc<Self> {
        Arc::new(Self { drain, running: Mutex::default() })
    }

    pub(crate) fn enter(self: &Arc<Self>, claim: &Claim) -> Entered {
        let (lease, stop) = (claim.lease, Stop::default());
        let now = Instant::now();
        let since = now.checked_sub(claim.waited).unwrap_or(now);
        let mut entries = self.lock();
        let before = entries.by_id.insert(lease.id, Entry { lease, since, stop: stop.clone() });
        if let Some(before) = before {
            // Our own earlier attempt has lost the task: it was given to us again.
            entries.by_age.remove(&(before.since, lease.id));
            before.stop.lost.cancel();
        }
        entries.by_age.insert((since, lease.id));
        self.tell_oldest(&entries);
        Entered { leases: self.clone(), lease, stop }
    }

    fn leave(&self, lease: Lease) {
        let mut entries = self.lock();
        // A later attempt at the same task may have taken the place.
        if entries.by_id.get(&lease.id).is_some_and(|entry| entry.lease == lease)
            && let Some(entry) = entries.by_id.remove(&lease.id)
        {
            entries.by_age.remove(&(entry.since, lease.id));
            self.tell_oldest(&entries);
        }
    }

    fn tell_oldest(&self, entries: &Entries) {
        self.drain.set_oldest_task(entries.by_age.first().map(|(since, _)| *since));
    }

    /// All attempts that run.
    pub(crate) fn all(&self) -> Vec<Lease> {
        self.lock().by_id.values().map(|entry| entry.lease).collect()
    }

    fn tell(&self, lease: Lease, held: Held) {
        let entries = self.lock();
        let Some(entry) = entries.by_id.get(&lease.id).filter(|entry| entry.lease == lease) else { return };
        match held {
            Held::Yes => {}
            Held::CancelRequested => entry.stop.cancel.cancel(),
            Held::Lost => entry.stop.lost.cancel(),
        }
    }

    /// Renews leases and hands on what clients want, for as long as the process lives.
    pub(crate) async fn keep(self: Arc<Self>, queue: Arc<Queue>) {
        loop {
            let store = queue.opened().await;
            let mut cancellations = store.cancellations();
            let every = store.renew_every().unwrap_or(NET);
            let mut tick = interval(every);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    asked = cancellations.recv() => match asked {
                        Ok(attempt) => self.tell(attempt, Held::CancelRequested),
                        Err(RecvError::Lagged(_)) => self.renew(&store, every).await,
                        Err(RecvError::Closed) => queue.replaced(&store).await,
                    },
                    _ = tick.tick() => self.renew(&store, every).await,
                    () = queue.replaced(&store) => break,
                }
            }
        }
    }

    async fn renew(&self, store: &Arc<dyn TaskStore>, limit: Duration) {
        let leases = self.all();
        if leases.is_empty() {
            return;
        }
        match timeout(limit, store.renew(&leases)).await {
            Ok(Ok(answers)) => {
                for (lease, held) in leases.into_iter().zip(answers) {
                    self.tell(lease, held);
                }
            }
            // Attempts go on: whether the lease is lost is for the database to say, once it is back.
            Ok(Err(error)) => debug!(%error, "cannot renew leases; retrying"),
            Err(_) => debug!("cannot renew leases in time; retrying"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.running.lock()
    }
}

#[cfg(test)]
mod tests {
    use graceful_drain::Settings;

    use super::*;

    fn claim(id: Uuid, attempt: u16) -> Claim {
        Claim {
            lease: Lease { id, attempt },
            kind: "sleep".to_owned(),
            input: "{}".to_owned(),
            client_id: None,
            timeout: None,
            max_attempts: 9,
            queue: graceful_store::DEFAULT_QUEUE.into(),
            backoff: None,
            created: 0,
            waited: Duration::ZERO,
            trace: None,
        }
    }

    #[tokio::test]
    async fn a_cancellation_that_comes_late_stops_no_later_attempt() {
        let leases = Leases::new(Drain::new(Settings::default()));
        let id = Uuid::now_v7();
        // The first was asked to stop and ended; the task was retried before the word of it came.
        drop(leases.enter(&claim(id, 1)));
        let second = leases.enter(&claim(id, 2));
        leases.tell(Lease { id, attempt: 1 }, Held::CancelRequested);
        assert!(!second.stop.cancel.is_cancelled());
        leases.tell(Lease { id, attempt: 2 }, Held::CancelRequested);
        assert!(second.stop.cancel.is_cancelled());
    }
}
