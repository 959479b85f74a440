//! Ends pods that have a proof: which of several steps this plan takes towards it.

use graceful_api::DrainReason;
use jiff::SignedDuration;

use crate::action::{Action, DeletionCost, Proof};
use crate::draft::{Draft, pod_ref};
use crate::ids::PodUid;
use crate::observed::{Deletion, Pod};
use crate::proofs::{Progress, progress};
use crate::snapshot::Snapshot;

/// When to plan again for the next pod of a Deployment: one goes in each plan.
const NEXT_POD_IN: SignedDuration = SignedDuration::from_millis(10);

/// Plans to end a pod that has a proof. Returns whether the pod is to be counted as going, even where this plan cannot end it yet: at most one pod a Deployment is
/// ended in a plan, since the second would scale from a number that the first has changed. The next plan, milliseconds later, ends the next.
pub(crate) fn retire(snapshot: &Snapshot<'_>, draft: &mut Draft, pod: &Pod, proof: Proof) -> bool {
    let reason = match snapshot.observed.app.deletion {
        Deletion::No | Deletion::Leave if !pod.stays() => DrainReason::NodeDrain,
        Deletion::No | Deletion::Leave if snapshot.is_superseded(pod) => DrainReason::Rollout,
        Deletion::No | Deletion::Leave => DrainReason::ScaleDown,
        Deletion::Drain | Deletion::Orphan => DrainReason::Delete,
    };
    retire_for(snapshot, draft, pod, proof, reason)
}

/// As [`retire`], with the reason to write on the pod if it must be unrouted first.
pub(crate) fn retire_for(
    snapshot: &Snapshot<'_>,
    draft: &mut Draft,
    pod: &Pod,
    proof: Proof,
    reason: DrainReason,
) -> bool {
    let Some(revision) = snapshot.revision(&pod.revision) else {
        return false; // its Deployment is gone: the garbage collector ends it
    };
    if !snapshot.may_be_ended(pod) {
        return false;
    }
    if draft.acts_on(&pod.uid) {
        return true;
    }
    // It may start, or become Ready, after its DELETE: clients are not to be sent to it then.
    if pod.routed && (pod.may_start() || matches!(proof, Proof::NeverWorked { .. })) {
        let epoch = draft.epochs.next_for(snapshot, pod);
        draft.act(Action::Unroute {
            pod: pod_ref(pod),
            epoch,
            reason,
            since: snapshot.clock.now(),
            cost: DeletionCost::Lowest,
        });
        return true;
    }
    // A spare: its Deployment has no replica for it, and its ReplicaSet deletes it by itself; if we deleted it, the ReplicaSet might make another.
    if pod.may_start() && snapshot.remaining_of(&pod.revision) > revision.replicas {
        return true;
    }
    // Its ReplicaSet has not heard of the last replica less, and would make this pod anew.
    if !revision.followed {
        return true;
    }
    if draft.scales(&pod.revision) {
        snapshot.clock.wake_in(NEXT_POD_IN);
        return true;
    }
    draft.act(Action::Retire {
        pod: pod_ref(pod),
        revision: pod.revision.clone(),
        replicas: revision.replicas,
        proof,
        as_well: others_that_may_go(snapshot, pod),
    });
    true
}

/// The other pods of its Deployment that have a proof.
fn others_that_may_go(snapshot: &Snapshot<'_>, pod: &Pod) -> Vec<(PodUid, Proof)> {
    let siblings = snapshot.remaining.iter().filter(|p| p.revision == pod.revision && p.uid != pod.uid);
    let with_proof = |p: &&&Pod| match progress(snapshot, p) {
        Progress::MayEnd(proof) => Some((p.uid.clone(), proof)),
        Progress::Busy | Progress::Held => None,
    };
    siblings.filter_map(|p| with_proof(&p)).collect()
}
