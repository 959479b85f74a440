//! The plan while it is being written, with the rules about writing that all others keep.

use std::collections::BTreeMap;

use graceful_api::{DrainReason, RevisionHash};
use jiff::SignedDuration;

use crate::action::{Action, DeletionCost, PodRef, Proof};
use crate::drains::{Progress, may_start, progress};
use crate::ids::{Epoch, PodUid};
use crate::observed::{Deletion, Pod};
use crate::snapshot::{Epochs, Snapshot};

/// When to plan again for the next pod of a Deployment: one goes in each plan.
const NEXT_POD_IN: SignedDuration = SignedDuration::from_millis(10);

/// The actions of one plan, as the rules give them.
///
/// # Guarantees
/// A plan acts upon a pod once, and scales a Deployment once. The rules speak in the order of [`plan`](crate::plan()), which is their rank: what one has decided
/// stands, and what a later one says of the same pod or Deployment is dropped by [`Draft::act`].
pub(crate) struct Draft {
    pub(crate) actions: Vec<Action>,
    pub(crate) epochs: Epochs,
    /// Unrouted pods that are told to accept again, and get their label once they have: no rule of lower rank acts on them.
    pub(crate) reopening: BTreeMap<PodUid, Epoch>,
    /// Serving pods whose in-flight count is wanted fresh.
    pub(crate) ask_serving: bool,
    /// The same, for their marks: nothing waits for it.
    pub(crate) ask_for_marks: bool,
}

impl Draft {
    pub(crate) fn new(snapshot: &Snapshot<'_>) -> Self {
        Self {
            actions: Vec::new(),
            epochs: snapshot.epochs(),
            reopening: BTreeMap::new(),
            ask_serving: false,
            ask_for_marks: false,
        }
    }

    /// Takes the action, unless a rule of higher rank has one for the same pod or Deployment. Says whether it is taken.
    pub(crate) fn act(&mut self, action: Action) -> bool {
        let pod = action.pod().is_some_and(|pod| self.acts_on(&pod.uid));
        let scaled = action.scales().is_some_and(|revision| self.scales(revision));
        let taken = !pod && !scaled;
        if taken {
            self.actions.push(action);
        }
        taken
    }

    /// Has the pod told to accept again, unless a rule of higher rank acts on it.
    pub(crate) fn reopen(&mut self, pod: &Pod, epoch: Epoch) {
        if !self.acts_on(&pod.uid) {
            self.reopening.insert(pod.uid.clone(), epoch);
        }
    }

    /// Plans to end a pod. True if the pod is to be counted as going, even where this plan cannot do it yet: at most one a Deployment and plan is ended, since
    /// the second would scale from a number that the first has changed. The next plan, milliseconds later, takes the next.
    pub(crate) fn retire(&mut self, snapshot: &Snapshot<'_>, pod: &Pod, proof: Proof) -> bool {
        let reason = match snapshot.observed.app.deletion {
            Deletion::No if !pod.stays() => DrainReason::NodeDrain,
            Deletion::No if snapshot.is_superseded(pod) => DrainReason::Rollout,
            Deletion::No => DrainReason::ScaleDown,
            Deletion::Drain | Deletion::Orphan => DrainReason::Delete,
        };
        self.retire_for(snapshot, pod, proof, reason)
    }

    /// The same for this reason, which is told where the pod is taken out of service first.
    pub(crate) fn retire_for(
        &mut self,
        snapshot: &Snapshot<'_>,
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
        if self.acts_on(&pod.uid) {
            return true;
        }
        // It may start, or become Ready, after its DELETE: clients are not to be sent to it then.
        if pod.routed && (may_start(pod) || matches!(proof, Proof::NeverWorked { .. })) {
            let epoch = self.epochs.next_for(snapshot, pod);
            self.act(Action::Unroute {
                pod: pod_ref(pod),
                epoch,
                reason,
                since: snapshot.clock.now(),
                cost: DeletionCost::Lowest,
            });
            return true;
        }
        // A spare: its Deployment has no replica for it, and its ReplicaSet deletes it by itself; if we deleted it, the ReplicaSet might make another.
        if may_start(pod) && snapshot.remaining_of(&pod.revision) > revision.replicas {
            return true;
        }
        // Its ReplicaSet has not heard of the last replica less, and would make this pod anew.
        if !revision.followed {
            return true;
        }
        if self.scales(&pod.revision) {
            snapshot.clock.wake_in(NEXT_POD_IN);
            return true;
        }
        self.act(Action::Retire {
            pod: pod_ref(pod),
            revision: pod.revision.clone(),
            replicas: revision.replicas,
            proof,
            as_well: others_that_may_go(snapshot, pod),
        });
        true
    }

    fn acts_on(&self, uid: &PodUid) -> bool {
        self.reopening.contains_key(uid)
            || self.actions.iter().any(|action| action.pod().is_some_and(|pod| pod.uid == *uid))
    }

    /// Retirements included.
    fn scales(&self, hash: &RevisionHash) -> bool {
        self.actions.iter().any(|action| action.scales() == Some(hash))
    }
}

fn others_that_may_go(snapshot: &Snapshot<'_>, pod: &Pod) -> Vec<(PodUid, Proof)> {
    let siblings = snapshot.remaining.iter().filter(|p| p.revision == pod.revision && p.uid != pod.uid);
    let with_proof = |p: &&&Pod| match progress(snapshot, p) {
        Progress::MayEnd(proof) => Some((p.uid.clone(), proof)),
        Progress::Busy | Progress::Held => None,
    };
    siblings.filter_map(|p| with_proof(&p)).collect()
}

pub(crate) fn pod_ref(pod: &Pod) -> PodRef {
    PodRef { name: pod.name.clone(), uid: pod.uid.clone() }
}
