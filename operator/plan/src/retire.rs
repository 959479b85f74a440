//! The last look before a kill. Pure: the executor brings the live list and obeys.

use crate::action::Proof;
use crate::busy::cannot_be_busy;
use crate::observed::{Container, Epoch, Pod, PodUid};

/// What the live list allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// DELETE the pod with the uid and resourceVersion of this live list, then at once bring `spec.replicas` from the value seen to `scale_to`.
    Go {
        /// Never below the pods that live on. Equal to the value seen where there is nothing to lower.
        scale_to: u32,
    },
    /// Something has changed since the plan: look again.
    Void(&'static str),
}

/// Decides on a live list of all pods of the Deployment, read just now, with `replicas` as the plan saw it.
///
/// # Flow
/// live list → `check` → DELETE with uid and resourceVersion → scale to `scale_to`, if `spec.replicas` is still what was seen.
///
/// # Guarantees
/// A pod that was put back to serving, re-marked by another leader, or replaced under its name is never deleted. `scale_to` is never
/// below the number of pods that live on, so that the ReplicaSet has no busy pod to choose.
///
/// # Assumptions
/// The scale follows within about a second: a spare that the ReplicaSet starts meanwhile is still Pending, and Pending pods are its first victims.
///
/// # Caveats
/// If the scale fails it is not tried again (by then the spare may run, and a busy pod would be taken for its co-location): a spare that
/// runs is a serving pod like any other.
pub fn check(pod: &PodUid, proof: Proof, replicas: u32, live: &[Pod]) -> Verdict {
    let Some(found) = live.iter().find(|p| p.uid == *pod) else {
        return Verdict::Void("the pod is gone");
    };
    if found.terminating {
        return Verdict::Void("the pod is terminating already");
    }
    let holds = match proof {
        Proof::Idle { epoch } | Proof::Quiet { epoch } | Proof::Cut { epoch, .. } => drains_in(found, epoch),
        Proof::HandedOver { epoch } => drains_in(found, epoch) && found.container != Container::Crashed,
        Proof::NotRunning => cannot_be_busy(found),
    };
    if !holds {
        return Verdict::Void("the pod is not what the plan saw");
    }
    let others = count(live.iter().filter(|p| p.uid != *pod && !p.terminating));
    Verdict::Go { scale_to: replicas.saturating_sub(1).max(others.min(replicas)) }
}

/// Whether `spec.replicas` may be lowered to `to` on this live list: pods that may run are never left to a ReplicaSet's choice.
pub fn may_lower(to: u32, live: &[Pod]) -> bool {
    count(live.iter().filter(|p| !p.terminating && p.container != Container::NeverStarted)) <= to
}

fn drains_in(pod: &Pod, epoch: Epoch) -> bool {
    !pod.serving && pod.drain.is_some() && pod.epoch == Some(epoch)
}

fn count<'a>(pods: impl Iterator<Item = &'a Pod>) -> u32 {
    u32::try_from(pods.count()).unwrap_or(u32::MAX)
}
