//! What of a rollout is overdue by `progressDeadlineSeconds`.

use graceful_api::conditions::Reason;
use jiff::Timestamp;

use crate::clock::{after, seconds};
use crate::observed::{Failure, Pod, Readiness};
use crate::phrases::exceeds_quota;
use crate::snapshot::Snapshot;

/// The new revision has not got on for `progressDeadlineSeconds`, whatever is to come.
pub(crate) fn is_stuck(snapshot: &Snapshot<'_>) -> bool {
    overdue(snapshot, For::Anything).is_some()
}

/// What is overdue.
#[derive(Clone, Copy)]
pub(crate) enum Overdue<'a> {
    /// A ReplicaSet could not make a pod for so long.
    Unmade(&'a Failure),
    /// A new pod has not taken work for so long, and why.
    NotTakingWork(&'a Pod, Reason),
}

/// What a new pod waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    Anything,
    /// Pods that lack capacity alone are passed over: it will be free (`budget::capacity_will_free`).
    MoreThanCapacity,
}

/// Returns what is overdue first: a new pod that has not taken work for `progressDeadlineSeconds`, or a ReplicaSet that could not make one for as long.
pub(crate) fn overdue<'a>(snapshot: &Snapshot<'a>, waits: For) -> Option<Overdue<'a>> {
    let update = snapshot.revision(snapshot.update())?;
    let capacity_helps = |words: &str| !update.has_no_replica_set && exceeds_quota(words);
    let passed_over = |lacks_capacity: bool| waits == For::MoreThanCapacity && lacks_capacity;
    if let Some(failure) =
        update.replica_failure.as_ref().filter(|f| !passed_over(capacity_helps(&f.message)))
    {
        let deadline = after(failure.since, seconds(snapshot.observed.app.progress_deadline_seconds));
        if snapshot.clock.has_come(deadline) {
            return Some(Overdue::Unmade(failure));
        }
    }
    let mut found = None;
    for pod in snapshot.routed().filter(|p| !snapshot.is_superseded(p) && !snapshot.takes_work(p)) {
        if passed_over(pod.unschedulable.is_some()) {
            continue;
        }
        // No early return: each pod's deadline must be asked for, so that the plan is made again then.
        let Some((since, reason)) = failing_since(snapshot, pod) else {
            continue;
        };
        let deadline = after(since, seconds(snapshot.observed.app.progress_deadline_seconds));
        if snapshot.clock.has_come(deadline) && found.is_none() {
            found = Some(Overdue::NotTakingWork(pod, reason));
        }
    }
    found
}

/// Since when a new pod has been failing, and at what. None while it has not been asked yet.
fn failing_since(snapshot: &Snapshot<'_>, pod: &Pod) -> Option<(Timestamp, Reason)> {
    match (snapshot.available_from(pod), pod.readiness) {
        (Some(from), _) if snapshot.clock.has_come(from) => {
            let contact = snapshot.contact(pod)?;
            match (&contact.error, contact.closed_since) {
                (Some(error), _) => Some((from.max(error.since), Reason::InFlightUnreadable)),
                (None, Some(closed)) => Some((from.max(closed), Reason::ProgressDeadlineExceeded)),
                (None, None) => None,
            }
        }
        (Some(from), _) => Some((from, Reason::ProgressDeadlineExceeded)),
        (None, Readiness::Lost(since)) => Some((since, Reason::ProgressDeadlineExceeded)),
        (None, _) => Some((pod.created, Reason::ProgressDeadlineExceeded)),
    }
}
