//! The last look before a kill: what a live read allows. [`crate::retirement`] asks it, in its order.

use std::time::Duration;

use graceful_api::{DrainPolicy, Signal};

use crate::action::Proof;
use crate::count::count;
use crate::ids::{Epoch, PodUid};
use crate::observed::{Containers, Pod, Readiness};

/// What the live look allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// DELETE the pod with the uid and resourceVersion of this look, then at once bring `spec.replicas` from the value seen to `scale_to`.
    Go {
        /// The new `spec.replicas`: one less than seen, but never below the pods that live on. The value seen, where that leaves nothing to lower.
        scale_to: u32,
        /// The grace of the DELETE; none is the pod's own.
        grace_seconds: Option<u32>,
    },
    /// The pod has finished by itself, and counts for nothing.
    Finished,
    /// Something has changed since the plan: look again.
    Void(&'static str),
}

/// Decides on a live look: the pod as it is just now, and how many others of its Deployment its ReplicaSet counts (`Pod::is_active`). `replicas` is
/// what the plan saw.
///
/// # Guarantees
/// A pod that was put back to serving, given a new epoch by another leader, or replaced under its name is never deleted. `scale_to` is never
/// lowered below the number of pods that live on, so that the ReplicaSet has no busy pod to choose.
pub fn check(found: Option<&Pod>, proof: Proof, replicas: u32, others: u32) -> Verdict {
    let Some(found) = found else {
        return Verdict::Void("the pod is gone");
    };
    if found.terminating {
        return Verdict::Void("the pod is terminating already");
    }
    if found.containers == Containers::Finished {
        return Verdict::Finished;
    }
    if !holds(found, proof) {
        return Verdict::Void("the pod is not what the plan saw");
    }
    let grace_seconds = match proof {
        Proof::NeverWorked { grace_seconds }
        | Proof::TokenRefused { grace_seconds, .. }
        | Proof::HandedOver { grace_seconds, .. } => Some(grace_seconds),
        Proof::Idle { .. } | Proof::Quiet { .. } | Proof::Cut { .. } | Proof::NotRunning => None,
    };
    Verdict::Go { scale_to: replicas.saturating_sub(1).max(others.min(replicas)), grace_seconds }
}

fn holds(found: &Pod, proof: Proof) -> bool {
    match proof {
        Proof::Idle { epoch }
        | Proof::Quiet { epoch }
        | Proof::TokenRefused { epoch, .. }
        | Proof::Cut { epoch, .. } => drains_in(found, epoch),
        Proof::HandedOver { epoch, .. } => drains_in(found, epoch) && !found.waits_in_a_volume(),
        Proof::NotRunning => found.nothing_runs(),
        Proof::NeverWorked { .. } => found.node.is_heard() && found.readiness == Readiness::Never,
    }
}

/// Whether a spare that the ReplicaSet makes would be out of service before it has clients, given how long a write to a pod takes; None if it is refused. It is
/// scheduled and started in a second or two, and its unrouting may meet a conflict and be sent twice.
pub fn unroutes_in_time(pod_write: Option<Duration>) -> bool {
    pod_write.is_some_and(|took| took <= Duration::from_millis(500))
}

/// How soon a ReplicaSet must hear of its Deployment's scale to take a spare back before the spare has started.
pub const FOLLOWS_AT_ONCE: Duration = Duration::from_millis(500);

/// How long after a DELETE a spare that runs is put down to it.
const SPARE_RUNS_WITHIN: Duration = Duration::from_secs(60);

/// Whether a spare ran before its ReplicaSet took it back, so that the last scale after a DELETE came late: more of these pods of the Deployment have begun than
/// it had replicas (`from`), and its last scale after a DELETE was so long ago.
pub fn spare_ran<'a>(pods: impl Iterator<Item = &'a Pod>, from: u32, taken_back: Option<Duration>) -> bool {
    taken_back.is_some_and(|ago| ago < SPARE_RUNS_WITHIN) && count(pods.filter(|p| p.has_begun())) > from
}

/// Whether `spec.replicas` may be lowered to `to` on this live list: pods that may run are never left to a ReplicaSet's choice.
pub fn may_lower(to: u32, live: &[Pod]) -> bool {
    count(live.iter().filter(|p| p.has_begun())) <= to
}

/// How many pods of this live list its ReplicaSet takes when `spec.replicas` goes from one number to a lower one. (Those beyond the first were to go before.)
pub fn taken_by(from: u32, to: u32, live: &[Pod]) -> u32 {
    count(live.iter().filter(|p| p.is_active())).min(from).saturating_sub(to)
}

/// Whether the Deployment may be scaled down by one *before* the pod is deleted, on this live list of all its pods. That is for an API server too
/// slow for the other order: the ReplicaSet then chooses, so a wrong choice must lose nothing.
///
/// Either every active pod has a proof (`as_well` are the plan's other proofs); or all drain themselves on SIGTERM within a grace of at least the
/// deadline, and every sibling is Ready, so that the lowest deletion cost, put on this pod just before, decides.
pub(crate) fn may_scale_first(
    pod: &PodUid,
    proof: Proof,
    as_well: &[(PodUid, Proof)],
    policy: DrainPolicy,
    live: &[Pod],
) -> bool {
    let proof_of = |p: &Pod| {
        let its = as_well.iter().find(|(uid, _)| *uid == p.uid).map(|(_, proof)| *proof);
        its.or((p.uid == *pod).then_some(proof))
    };
    let loses_nothing =
        |p: &Pod| proof_of(p).is_some_and(|proof| holds(p, proof) && needs_no_delete_of_ours(p, proof));
    // The drain protocol demands it, and signal Sigterm is just that.
    let drains_itself = matches!(policy.signal, Signal::Http | Signal::Sigterm);
    let ready = |p: &Pod| matches!(p.readiness, Readiness::Ready(_)) && p.containers == Containers::Running;
    let safe_sibling = |p: &Pod| drains_itself && ready(p) && p.grace_seconds >= policy.deadline_seconds;
    let (mut target, others): (Vec<_>, Vec<_>) =
        live.iter().filter(|p| p.is_active()).partition(|p| p.uid == *pod);
    target.pop().is_some_and(loses_nothing)
        && (others.iter().all(|p| loses_nothing(p)) || others.iter().all(|p| safe_sibling(p)))
}

/// A ReplicaSet's DELETE has the pod's own grace, and counts nothing that it cuts.
fn needs_no_delete_of_ours(pod: &Pod, proof: Proof) -> bool {
    match proof {
        Proof::Idle { .. } | Proof::Quiet { .. } => true,
        // A crashed one runs again before a ReplicaSet that follows late has deleted it, and clients are sent to it.
        Proof::NotRunning => !pod.routed,
        Proof::NeverWorked { grace_seconds }
        | Proof::TokenRefused { grace_seconds, .. }
        | Proof::HandedOver { grace_seconds, .. } => pod.grace_seconds >= grace_seconds,
        Proof::Cut { .. } => false,
    }
}

fn drains_in(pod: &Pod, epoch: Epoch) -> bool {
    !pod.routed && pod.drain.is_some() && pod.epoch == Some(epoch)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::fixture::serving;
    use crate::observed::{DrainNote, Kubelet, Node};

    const EPOCH: Epoch = Epoch(4);
    const IDLE: Proof = Proof::Idle { epoch: EPOCH };

    fn draining(name: &str) -> Pod {
        let drain =
            Some(DrainNote { reason: graceful_api::DrainReason::Rollout, since: Timestamp::UNIX_EPOCH });
        Pod { routed: false, epoch: Some(EPOCH), drain, ..serving(name) }
    }

    fn policy(signal: Signal, deadline_seconds: u32) -> DrainPolicy {
        let on_deadline = graceful_api::OnDeadline::Hold;
        DrainPolicy { signal, linger_seconds: 3, quiet_seconds: 5, deadline_seconds, on_deadline }
    }

    /// Keeps P1.
    #[test]
    fn a_pod_that_was_put_back_is_never_deleted() {
        let go = Verdict::Go { scale_to: 2, grace_seconds: None };
        assert_eq!(check(Some(&draining("a")), IDLE, 3, 2), go);
        assert!(matches!(check(Some(&serving("a")), IDLE, 3, 2), Verdict::Void(_)));
        let drained_anew = Pod { epoch: Some(EPOCH.next()), ..draining("a") };
        assert!(matches!(check(Some(&drained_anew), IDLE, 3, 2), Verdict::Void(_)));
        assert!(matches!(check(None, IDLE, 3, 2), Verdict::Void(_)));
    }

    /// Keeps P1.
    #[test]
    fn replicas_never_fall_below_the_pods_that_live_on() {
        let scale_to = |replicas, others| match check(Some(&draining("a")), IDLE, replicas, others) {
            Verdict::Go { scale_to, .. } => scale_to,
            other => panic!("{other:?}"),
        };
        assert_eq!((scale_to(3, 2), scale_to(3, 1), scale_to(3, 3), scale_to(1, 0)), (2, 2, 3, 0));
    }

    #[test]
    fn a_finished_pod_is_no_reason_to_end_anything() {
        let evicted = Pod { containers: Containers::Finished, ..serving("a") };
        assert!(matches!(check(Some(&evicted), Proof::NotRunning, 3, 2), Verdict::Finished));
        assert!(may_lower(1, &[serving("a"), evicted]));
    }

    #[test]
    fn what_never_worked_gets_its_grace_and_only_while_that_is_so() {
        let proof = Proof::NeverWorked { grace_seconds: 604_800 };
        let unready = Pod { readiness: Readiness::Never, ..serving("a") };
        let go = Verdict::Go { scale_to: 0, grace_seconds: Some(604_800) };
        assert_eq!(check(Some(&unready), proof, 1, 0), go);
        assert!(matches!(check(Some(&serving("a")), proof, 1, 0), Verdict::Void(_)), "it is Ready now");
        let lost = Pod { node: Node { kubelet: Kubelet::Silent, ..Node::default() }, ..unready };
        assert!(matches!(check(Some(&lost), proof, 1, 0), Verdict::Void(_)), "nobody hears its kubelet");
    }

    /// Keeps P1.
    #[test]
    fn a_queue_worker_is_deleted_with_the_grace_of_its_drain_and_never_by_its_replica_set() {
        let proof = Proof::HandedOver { epoch: EPOCH, grace_seconds: 604_800 };
        let go = Verdict::Go { scale_to: 2, grace_seconds: Some(604_800) };
        assert_eq!(check(Some(&draining("a")), proof, 3, 2), go);
        let crashed = Pod { containers: Containers::HalfCrashed, ..draining("a") };
        assert!(matches!(check(Some(&crashed), proof, 3, 2), Verdict::Void(_)), "its volume may hold work");
        assert!(matches!(check(Some(&serving("a")), proof, 3, 2), Verdict::Void(_)), "it was put back");
        let may = |grace_seconds| {
            let live = [Pod { grace_seconds, ..draining("a") }, serving("b")];
            may_scale_first(&PodUid::from("a"), proof, &[], policy(Signal::Sigterm, 60), &live)
        };
        assert!(!may(90), "its ReplicaSet's DELETE has the pod's own grace");
        assert!(may(604_800));
    }

    /// Keeps P1.
    #[test]
    fn a_scale_comes_first_only_where_a_wrong_choice_loses_nothing() {
        let may = |proof, as_well: &[(PodUid, Proof)], policy, live: &[Pod]| {
            may_scale_first(&PodUid::from("a"), proof, as_well, policy, live)
        };
        let (short, long) = (policy(Signal::Http, 60), policy(Signal::Http, 300));
        let both = [draining("a"), serving("b")];
        assert!(may(IDLE, &[], short, &both), "its sibling would drain itself within 90 s of 60");
        assert!(!may(IDLE, &[], long, &both), "its sibling would be killed after 90 s of 300");
        assert!(!may(IDLE, &[], policy(Signal::None, 60), &both), "its sibling does not drain itself");
        let unready = Pod { readiness: Readiness::Lost(Timestamp::UNIX_EPOCH), ..serving("b") };
        assert!(
            !may(IDLE, &[], short, &[draining("a"), unready]),
            "it would be taken whatever the cost says"
        );
        let idle = [(PodUid::from("b"), IDLE)];
        assert!(may(IDLE, &idle, long, &[draining("a"), draining("b")]), "either may go");
        assert!(!may(IDLE, &idle, long, &both), "it was put back meanwhile");
        let cut = Proof::Cut { epoch: EPOCH, tasks: Some(2) };
        assert!(!may(cut, &[], short, &both), "a ReplicaSet counts nothing that it cuts");
        let crashed = Pod { containers: Containers::CrashedEmpty, ..serving("a") };
        let gone = Pod { routed: false, ..crashed.clone() };
        assert!(
            !may(Proof::NotRunning, &[], short, &[crashed, serving("b")]),
            "it may run again, and is routed to"
        );
        assert!(may(Proof::NotRunning, &[], short, &[gone, serving("b")]));
        let evicted = Pod { containers: Containers::Finished, ..serving("b") };
        assert!(may(IDLE, &[], long, &[draining("a"), evicted]), "a finished pod counts for nothing");
    }
}
