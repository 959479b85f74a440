//! Leader election: whether this process may write is asked before each request that changes something.
//!
//! # Flow
//! [`Campaign`] keeps the Lease as the [`Elector`](elector::Elector) says, and extends the [`Term`] with each renewal → [`Leadership::held`]
//! compares the term's end with the clock → the [`client`](client::leading) and the conversations with pods ask it as they send.
//!
//! # Guarantees
//! Two processes never believe that they lead at the same moment, as long as one's clock runs less than leaseDuration / renewDeadline times as fast as
//! the other's. What time it is on either does not matter: the Lease's own times are for people.
//!
//! # Caveats
//! A lease does not stop what is already on its way: a process may be paused between the question and the send, and a request may be on its way for long. Destructive calls
//! carry preconditions either way.

mod campaign;
mod client;
mod elector;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

pub(crate) use self::campaign::Campaign;
#[cfg(test)]
pub(crate) use self::campaign::TimeOfDay;
pub(crate) use self::client::leading;
use crate::clock::since_boot;

/// Which Lease decides who leads, and how fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The durations.
    pub timing: Timing,
}

/// The durations of an election, under client-go's names where that has one.
///
/// The defaults, one by one. A leader that dies is followed after `lease_duration` (15 s, as everywhere in Kubernetes). A renewal may fail, or have no
/// answer, before `renew_deadline` (7 s) ends the term. What remains, 8 s, is longer than a request is waited for, so that the last one of a leader that hears
/// nothing more has been given up before another leads; and clocks may differ in rate by a factor of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A standby takes over once the record has not changed for so long.
    pub lease_duration: Duration,
    /// The leader stops so long after it sent its last good renewal.
    pub renew_deadline: Duration,
    /// The leader renews that often.
    pub retry_period: Duration,
    /// A standby looks that often: how late it notices that the lease was released.
    pub look_every: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(7),
            retry_period: Duration::from_secs(2),
            look_every: Duration::from_millis(500),
        }
    }
}

impl Timing {
    /// Whether they keep what is promised, if a request is waited for that long.
    ///
    /// # Errors
    /// Which two contradict each other.
    pub(crate) fn check(&self, request: Duration) -> Result<(), String> {
        let Self { lease_duration, renew_deadline, retry_period, look_every } = *self;
        if retry_period.is_zero() || look_every.is_zero() || renew_deadline < 2 * retry_period {
            return Err(format!(
                "renew-deadline ({renew_deadline:?}) must be at least twice retry-period ({retry_period:?})"
            ));
        }
        if lease_duration <= renew_deadline + request {
            return Err(format!(
                "lease-duration ({lease_duration:?}) must be longer than renew-deadline ({renew_deadline:?}) and the {request:?} that a request may take"
            ));
        }
        Ok(())
    }
}

/// Whether this process may write.
#[derive(Clone, Debug, Default)]
pub(crate) enum Leadership {
    /// The only replica: outside of a cluster, and in tests.
    #[default]
    Sole,
    /// One of several: as long as its term lasts.
    Elected(Arc<Term>),
}

impl Leadership {
    /// Asked before each plan, and before each request that changes something.
    pub(crate) fn held(&self) -> bool {
        match self {
            Self::Sole => true,
            Self::Elected(term) => term.lasts(since_boot()),
        }
    }

    /// Waits until it is held for the first time.
    pub(crate) async fn gained(&self) {
        if let Self::Elected(term) = self {
            let mut begun = term.begun.subscribe();
            // The sender lives in the term.
            let _never_closed = begun.wait_for(|begun| *begun).await;
        }
    }
}

/// Until when this process leads, on its own clock. Over for good once it is over: the process that lost it ends.
#[derive(Debug, Default)]
pub(crate) struct Term {
    /// Nanoseconds of [`since_boot`]; 0 is never.
    until: AtomicU64,
    begun: watch::Sender<bool>,
}

impl Term {
    fn lasts(&self, now: Duration) -> bool {
        now < Duration::from_nanos(self.until.load(Ordering::Acquire))
    }

    pub(crate) fn extend(&self, until: Duration) {
        self.until.store(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX), Ordering::Release);
        self.begun.send_replace(true);
    }

    pub(crate) fn end(&self) {
        self.until.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
