//! Deployments whose changes reach their ReplicaSets late: the Deployment controller is busy or away, or a webhook on ReplicaSets hangs or refuses.
//!
//! A pod that is ended meanwhile is made again, since its ReplicaSet knows of no replica less. So nothing more of such a Deployment is ended until its
//! controller has caught up.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::observed::{Hindered, Hindrance, Revision};
use graceful_api::RevisionHash;

/// A controller that is well takes up a change in milliseconds, and behind an API server of two seconds a call in less than this.
const LATE: SignedDuration = SignedDuration::from_secs(10);

/// How long until it is looked at again, watch events or not.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// A Deployment controller that has failed fifteen times in a row, which takes a minute and a half, forgets a Deployment until something is written to it.
/// So something is, after this long at first, and then each time that much later: what has kept it may be gone since.
const NUDGE: (SignedDuration, SignedDuration) =
    (SignedDuration::from_secs(30), SignedDuration::from_secs(60));

/// Since when each Deployment has not been followed, and when that was last answered by a write. Kept by whoever executes plans.
#[derive(Clone, Debug, Default)]
pub struct Lags(BTreeMap<RevisionHash, Lag>);

#[derive(Clone, Copy, Debug)]
struct Lag {
    since: Timestamp,
    nudged: bool,
    last: Timestamp,
}

impl Lags {
    /// Before each plan: notes on the Deployments which of them are late.
    pub fn look(&mut self, revisions: &mut [Revision], now: Timestamp) {
        self.0.retain(|hash, _| revisions.iter().any(|r| r.hash == *hash && !r.followed));
        for revision in revisions.iter_mut().filter(|r| !r.followed) {
            let lag =
                self.0.entry(revision.hash.clone()).or_insert(Lag { since: now, nudged: false, last: now });
            let pause = if lag.nudged { NUDGE.1 } else { NUDGE.0 };
            if now.duration_since(lag.last) >= pause {
                (lag.nudged, lag.last) = (true, now);
                revision.nudge = true;
            }
            if now.duration_since(lag.since) >= LATE {
                let message = format!(
                    "Deployment {} was changed, and its ReplicaSet has not followed within {} s: the cluster's Deployment controller does not run, or an \
                     admission webhook or policy on replicasets hangs or refuses; none of its pods is ended until it has",
                    revision.name,
                    LATE.as_secs()
                );
                let until = now.saturating_add(AGAIN).unwrap_or(Timestamp::MAX);
                revision.lag = Some(Hindrance { kind: Hindered::TooSlow, message, until });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_controller_that_has_given_up_is_nudged_each_minute() {
        let mut lags = Lags::default();
        let nudged = |second: &i64| {
            let mut revisions = [Revision { followed: false, ..fixture::revision("r") }];
            lags.look(&mut revisions, Timestamp::from_second(*second).unwrap());
            revisions[0].nudge
        };
        assert_eq!((0..240).filter(nudged).collect::<Vec<_>>(), [30, 90, 150, 210]);
    }

    #[test]
    fn a_deployment_is_late_until_it_is_followed() {
        let mut lags = Lags::default();
        let mut look = |followed, second| {
            let mut revisions = [Revision { followed, ..fixture::revision("r") }];
            lags.look(&mut revisions, Timestamp::from_second(second).unwrap());
            revisions[0].lag.is_some()
        };
        assert_eq!((look(false, 0), look(false, 9), look(false, 10)), (false, false, true));
        assert!(!look(true, 11));
        assert!(!look(false, 12), "counted anew");
    }
}
