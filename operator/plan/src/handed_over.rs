//! Signal Sigterm: pods that were deleted after their linger and drain themselves until they exit, as queue workers do.
//!
//! # Guarantees
//! Known by what is on the pod (terminating, our drain annotations, its revision's policy), so that a restarted operator knows them too. A pod that somebody else
//! deleted while it served has no drain annotations, and does not count as handed over. One that was handed over is shown with its count, asked like any that drains, and counts
//! towards replicas + maxSurge (P3, but for `rollout.replaceWhen: Draining`), until it is gone. None is ever put back.
//!
//! # Caveats
//! Of one whose node is silent or goes down nobody knows whether it still runs: it is shown, and nothing waits for it.

use graceful_api::{DrainPolicy, DrainReason, Signal};

use crate::observed::{Containers, DrainNote, Observed, Pod, Readiness};

/// Whether a pod of this view is one that drains itself after its DELETE. A spare that its ReplicaSet deletes again is none, nor is a pod of a revision that never worked: it must
/// not block its own fix, and has the lowest deletion cost.
pub fn is_handed_over(observed: &Observed, pod: &Pod) -> bool {
    let revision = observed.revisions.iter().find(|r| r.hash == pod.revision);
    let policy = revision.map_or(observed.app.policy, |r| r.policy);
    let unproven = revision.is_some_and(|r| !observed.is_proven(r));
    let blocks_its_fix = unproven && pod.cheapest && pod.readiness == Readiness::Never;
    // One that had begun to work was ended by a DELETE of ours, whose grace a person may have shortened since.
    let taken_back = |note: DrainNote| note.reason == DrainReason::Spare && has_its_own_grace(pod, policy);
    pod.terminating
        && !pod.routed
        && pod.drain.is_some_and(|note| !taken_back(note))
        && pod.containers != Containers::Finished
        && policy.signal == Signal::Sigterm
        && !blocks_its_fix
}

/// Whether the pod was deleted with its own terminationGracePeriodSeconds, as a ReplicaSet deletes, and our DELETE would have another. True where the grace is
/// unknown.
fn has_its_own_grace(pod: &Pod, policy: DrainPolicy) -> bool {
    let given = pod.grace_ends.zip(pod.ends_since).map(|(end, since)| end.duration_since(since).as_secs());
    let own = i64::from(pod.grace_seconds);
    given.is_none_or(|given| given == own && own != i64::from(policy.longest_drain_seconds()))
}

#[cfg(test)]
mod tests {
    use graceful_api::RevisionHash;
    use jiff::Timestamp;

    use super::*;
    use crate::action::Action;
    use crate::fixture;
    use crate::ids::Epoch;
    use crate::observed::{App, Deletion, Kubelet, Node, Revision};
    use crate::plan;

    /// An app that goes, and has one worker left, which has had its SIGTERM at 3 s.
    fn going(kubelet: Kubelet) -> Observed {
        let policy = fixture::policy(Signal::Sigterm);
        let at = |second| Timestamp::from_second(second).unwrap();
        let worker = Pod {
            terminating: true,
            routed: false,
            epoch: Some(Epoch(1)),
            drain: Some(DrainNote { reason: DrainReason::Delete, since: at(0) }),
            ends_since: Some(at(3)),
            grace_ends: Some(at(604_803)),
            node: Node { kubelet, ..Node::default() },
            ..fixture::serving("tasks-r-1")
        };
        Observed {
            revisions: vec![Revision { replicas: 0, policy, ..fixture::revision("r") }],
            pods: vec![worker],
            ..fixture::observed(App { deletion: Deletion::Drain, ..fixture::app(1, policy) })
        }
    }

    #[test]
    fn a_deletion_waits_for_a_worker_that_is_heard_and_not_for_one_on_a_lost_node() {
        let plan = |kubelet| plan(&going(kubelet), Timestamp::from_second(10).unwrap());
        let goes = Action::DeleteRevision { revision: RevisionHash::from("r") };
        assert!(!plan(Kubelet::Heard).actions.contains(&goes));
        assert!(plan(Kubelet::Silent).actions.contains(&goes));
    }

    /// Its revision's signal is all that it is known by: with another it would count for nothing, and a new pod would be made beside it.
    #[test]
    fn a_new_signal_waits_for_those_that_have_the_old_one() {
        for hash in ["r", "adopted"].map(RevisionHash::from) {
            let mut observed = going(Kubelet::Heard);
            observed.app.deletion = Deletion::No;
            observed.revisions[0].hash = hash.clone();
            observed.pods[0].revision = hash.clone();
            observed.revisions[0].policy_current = false;
            let syncs = |observed: &Observed| {
                let plan = plan(observed, Timestamp::from_second(10).unwrap());
                plan.actions.contains(&Action::SyncPolicy { revision: hash.clone() })
            };
            assert!(syncs(&observed), "another deadline changes nothing for it");
            observed.revisions[0].signal_current = false;
            assert!(!syncs(&observed));
            observed.pods[0].node.kubelet = Kubelet::Silent;
            assert!(syncs(&observed), "nothing waits for a pod of a lost node");
            observed.pods.clear();
            assert!(syncs(&observed));
        }
    }

    #[test]
    fn its_revision_has_a_pod_that_drains_until_it_is_gone() {
        let report = plan(&going(Kubelet::Heard), Timestamp::from_second(10).unwrap()).report;
        let of_it: Vec<_> = report.revisions.iter().map(|r| (r.pods, r.serving, r.draining)).collect();
        assert_eq!(of_it, [(0, 0, 1)]);
    }
}
