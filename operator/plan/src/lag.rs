//! Deployments whose changes reach their ReplicaSets late: the Deployment controller is busy or away, or a webhook on ReplicaSets hangs or refuses. And
//! ReplicaSets that could not make or end a pod, and wait long before they try again.
//!
//! A pod that is ended meanwhile is made again, since its ReplicaSet knows of no replica less. So nothing more of such a Deployment is ended until its
//! controller has caught up.

use std::collections::BTreeMap;

use graceful_api::RevisionHash;
use jiff::{SignedDuration, Timestamp};

use crate::clock::after;
use crate::observed::{Backoff, BackoffCause, Lag, Revision};

/// A controller that is well takes up a change in milliseconds, and behind an API server of two seconds a call in less than this.
const LATE: SignedDuration = SignedDuration::from_secs(10);

/// How long until it is checked again, watch events or not.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// A Deployment controller that has failed fifteen times in a row, which takes a minute and a half, forgets a Deployment until something is written to it.
/// So something is, first after this long.
const FIRST_NUDGE: SignedDuration = SignedDuration::from_secs(30);

/// The pause between two later ones: what kept the controller may be gone since.
const NEXT_NUDGE: SignedDuration = SignedDuration::from_secs(60);

/// A ReplicaSet that fails to create or delete pods backs off up to 1000 s. A nudge makes it retry at once; one is due whenever the last is older than a quarter
/// of the failing time (30–300 s).
const FAILING_TO_PAUSE: i32 = 4;

/// The longest pause between two such writes.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(300);

/// How long after a pod's end another ReplicaSet, which lacked capacity, may still use its place: the longest pause between two nudges, and half a minute to end the one and make
/// the other.
const CAPACITY_IS_TAKEN_WITHIN: SignedDuration = SignedDuration::from_secs(330);

/// Since when each Deployment has not been followed, and each ReplicaSet could not make or end pods. Kept by whoever executes plans.
#[derive(Clone, Debug, Default)]
pub struct Lags(BTreeMap<RevisionHash, Known>);

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    replicas: u32,
    /// When they were last lowered.
    lowered: Option<Timestamp>,
    unfollowed: Option<Timestamp>,
    failing: Option<Timestamp>,
}

impl Lags {
    /// Before each plan, with all Deployments there are. Returns what is late at which.
    pub fn update(&mut self, revisions: &[Revision], now: Timestamp) -> BTreeMap<RevisionHash, Lag> {
        self.0.retain(|hash, _| revisions.iter().any(|r| r.hash == *hash));
        let lag = |revision: &Revision| {
            let known = self.0.entry(revision.hash.clone()).or_default();
            known.update(revision, now);
            (revision.hash.clone(), known.lag(revision, now))
        };
        revisions.iter().map(lag).filter(|(_, lag)| *lag != Lag::default()).collect()
    }
}

impl Known {
    fn update(&mut self, revision: &Revision, now: Timestamp) {
        if revision.replicas < self.replicas {
            self.lowered = Some(now);
        }
        self.replicas = revision.replicas;
        // Without a ReplicaSet, `replica_failure` says why.
        let late = !revision.followed && !revision.has_no_replica_set;
        self.unfollowed = late.then(|| self.unfollowed.unwrap_or(now));
        let failure = revision.replica_failure.as_ref().or(revision.end_failure.as_ref());
        self.failing = failure.map(|_| self.failing.unwrap_or(now));
    }

    fn lag(&self, revision: &Revision, now: Timestamp) -> Lag {
        let late = self.unfollowed.is_some_and(|since| now.duration_since(since) >= LATE);
        let capacity_until = self.lowered.map(|at| after(at, CAPACITY_IS_TAKEN_WITHIN));
        Lag {
            not_followed: late.then(|| not_followed(&revision.name, now)),
            nudge: self.asks_for_a_nudge(revision.nudged, now),
            capacity_until: capacity_until.filter(|until| now < *until),
        }
    }

    fn asks_for_a_nudge(&self, nudged: Option<Timestamp>, now: Timestamp) -> bool {
        let due = |since: Timestamp, first: SignedDuration, later: SignedDuration| {
            let last = nudged.filter(|at| (since..=now).contains(at));
            now.duration_since(last.unwrap_or(since)) >= if last.is_some() { later } else { first }
        };
        self.unfollowed.is_some_and(|since| due(since, FIRST_NUDGE, NEXT_NUDGE))
            || self.failing.is_some_and(|since| {
                let pause = (now.duration_since(since) / FAILING_TO_PAUSE).clamp(FIRST_NUDGE, LONGEST_PAUSE);
                due(since, pause, pause)
            })
    }
}

fn not_followed(deployment: &str, now: Timestamp) -> Backoff {
    let message = format!(
        "Deployment {deployment} was changed, and its ReplicaSet has not followed within {} s: the cluster's Deployment controller does not run, or an \
         admission webhook or policy on replicasets hangs or refuses; none of its pods is ended until it has",
        LATE.as_secs()
    );
    Backoff { cause: BackoffCause::NotFollowed, message, until: after(now, AGAIN) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::observed::Failure;

    fn lag_of(lags: &mut Lags, revision: Revision, now: Timestamp) -> Lag {
        lags.update(&[revision], now).into_values().next().unwrap_or_default()
    }

    /// When the Deployment is written to, of seconds that are tried in a row.
    fn nudges(seconds: std::ops::Range<i64>, stuck: impl Fn(Revision) -> Revision) -> Vec<i64> {
        let (mut lags, mut nudged) = (Lags::default(), None);
        let written = |second: &i64| {
            let now = Timestamp::from_second(*second).unwrap();
            let revision = stuck(Revision { nudged, ..fixture::revision("r") });
            let nudge = lag_of(&mut lags, revision, now).nudge;
            if nudge {
                nudged = Some(now);
            }
            nudge
        };
        seconds.filter(written).collect()
    }

    #[test]
    fn a_controller_that_has_given_up_is_nudged_each_minute() {
        assert_eq!(nudges(0..240, |r| Revision { followed: false, ..r }), [30, 90, 150, 210]);
    }

    #[test]
    fn a_replica_set_in_its_back_off_is_nudged_less_and_less_often() {
        let message = "exceeded quota".to_owned();
        let failure = Failure { message, since: Timestamp::UNIX_EPOCH };
        let failing = |r| Revision { replica_failure: Some(failure.clone()), ..r };
        assert_eq!(nudges(0..300, failing), [30, 60, 90, 120, 160, 214, 286]);
        let later = nudges(0..4000, failing);
        assert_eq!(later[later.len() - 1] - later[later.len() - 2], 300);
    }

    #[test]
    fn a_write_that_was_not_made_is_asked_for_again() {
        let mut lags = Lags::default();
        let mut asked = |second| {
            let revision = Revision { followed: false, ..fixture::revision("r") };
            lag_of(&mut lags, revision, Timestamp::from_second(second).unwrap()).nudge
        };
        assert_eq!((asked(0), asked(30), asked(31)), (false, true, true));
    }

    #[test]
    fn a_deployment_is_late_until_it_is_followed() {
        let mut lags = Lags::default();
        let mut look = |followed, second| {
            let revision = Revision { followed, ..fixture::revision("r") };
            lag_of(&mut lags, revision, Timestamp::from_second(second).unwrap()).not_followed.is_some()
        };
        assert_eq!((look(false, 0), look(false, 9), look(false, 10)), (false, false, true));
        assert!(!look(true, 11));
        assert!(!look(false, 12), "counted anew");
    }

    #[test]
    fn the_place_of_a_pod_that_was_ended_may_be_taken_for_some_minutes() {
        let mut lags = Lags::default();
        let mut look = |replicas, second| {
            let revision = Revision { replicas, ..fixture::revision("r") };
            let lag = lag_of(&mut lags, revision, Timestamp::from_second(second).unwrap());
            lag.capacity_until.map(Timestamp::as_second)
        };
        assert_eq!((look(2, 0), look(3, 10), look(2, 20)), (None, None, Some(350)));
        assert_eq!((look(2, 349), look(2, 350)), (Some(350), None));
    }
}
