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
/// So something is, after this long at first, then twice as long each time up to the longest.
const NUDGE: (SignedDuration, SignedDuration) =
    (SignedDuration::from_secs(30), SignedDuration::from_secs(300));

/// Since when each Deployment has not been followed, and how often that was answered by a write. Kept by whoever executes plans.
#[derive(Clone, Debug, Default)]
pub struct Lags(BTreeMap<RevisionHash, Lag>);

#[derive(Clone, Copy, Debug)]
struct Lag {
    since: Timestamp,
    nudges: u32,
    last: Timestamp,
}

impl Lags {
    /// Before each plan: notes on the Deployments which of them are late.
    pub fn look(&mut self, revisions: &mut [Revision], now: Timestamp) {
        self.0.retain(|hash, _| revisions.iter().any(|r| r.hash == *hash && !r.followed));
        for revision in revisions.iter_mut().filter(|r| !r.followed) {
            let lag = self.0.entry(revision.hash.clone()).or_insert(Lag { since: now, nudges: 0, last: now });
            let pause = (NUDGE.0 * 2_i32.saturating_pow(lag.nudges.min(8))).min(NUDGE.1);
            if now.duration_since(lag.last) >= pause {
                (lag.nudges, lag.last) = (lag.nudges.saturating_add(1), now);
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
    fn a_controller_that_has_given_up_is_nudged_less_and_less_often() {
        let mut lags = Lags::default();
        let nudged = |second: &i64| {
            let mut revisions = [Revision { followed: false, ..fixture::revision("r") }];
            lags.look(&mut revisions, Timestamp::from_second(*second).unwrap());
            revisions[0].nudge
        };
        assert_eq!((0..1200).filter(nudged).collect::<Vec<_>>(), [30, 90, 210, 450, 750, 1050]);
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
