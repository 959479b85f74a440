//! A running Deployment becomes the app's oldest revision (`spec.adopt`), and nobody restarts its pods.
//!
//! # Flow
//! settled, and scaled by nobody else → the Deployment is taken (labelled, paused) → its pods are labelled → the user's Services ask for the serving label → from there on
//! it is a superseded revision like any other: its pods drain one by one, and it stays, with no replicas.
//!
//! # Guarantees
//! A Service asks for the serving label only once every pod of the Deployment that there is carries it: no client is refused for it. A Service that somebody has put back
//! is not changed again: that stops drains, and is said (`Surroundings::unfenced_services`).
//!
//! # Caveats
//! The Deployment's template is not ours: a pod that it makes later has no label until an operator has seen it, and gets no clients until then. That is P4's exception,
//! until the Deployment is at 0.

use graceful_api::RevisionHash;
use graceful_api::conditions::Reason;

use crate::action::Action;
use crate::draft::{Draft, pod_ref};
use crate::observed::{Adoption, Pod, Revision, Warning};
use crate::snapshot::Snapshot;
use crate::unroute::replica_set_is_choosing;

/// Nothing is made before the Deployment is the app's: its pods would be beside those of the Deployment, and not in their place.
pub(crate) fn is_awaited(snapshot: &Snapshot<'_>) -> bool {
    snapshot.observed.surroundings.adoption != Adoption::None && snapshot.observed.revisions.is_empty()
}

/// Takes the Deployment, its pods, and its Services, in this order.
pub(crate) fn take(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    if let Adoption::Ready { .. } = snapshot.observed.surroundings.adoption {
        draft.act(Action::Adopt);
    }
    enlist(snapshot, draft);
    fence(snapshot, draft);
}

/// What is left in the middle of it: pods that come are labelled as before, and Services are fenced for as long as others' pods have to drain. (They are given back in the end.)
pub(crate) fn carry_on(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    enlist(snapshot, draft);
    if snapshot.count_superseded() > 0 {
        fence(snapshot, draft);
    }
}

/// Has Services ask for the serving label, once every pod has it. (One that has lost it is put back first, by another rule of the same plan: the executor's own look
/// would end the plan before that.)
fn fence(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    let without = |p: &&&Pod| p.revision.is_adopted() && p.would_be_fenced_off();
    if adopted(snapshot).is_none() || snapshot.remaining.iter().any(|p| without(&p)) {
        return;
    }
    let around = &snapshot.observed.surroundings;
    for service in &around.fenceable {
        if !snapshot.backs_off(around.services_backoff.get(service)) {
            draft.act(Action::Fence { service: service.clone() });
        }
    }
}

/// It may have clients, or will. (A spare that has not started is taken back by its ReplicaSet, and should have none.)
fn lacks_labels(pod: &Pod) -> bool {
    !pod.enlisted && pod.has_begun()
}

/// Gives pods of the Deployment the labels that ours have from birth. While its ReplicaSet has one to delete, it may be just this one, a spare that has started: it is to have no
/// clients before there is a replica for it again (`rollout::protect`).
pub(crate) fn enlist(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    let may_be_written = |p: &Pod| !snapshot.backs_off(p.write_backoff.as_ref());
    let new = |p: &&&Pod| lacks_labels(p) && may_be_written(p) && !replica_set_is_choosing(snapshot, p);
    for pod in snapshot.remaining.iter().filter(new) {
        draft.act(Action::Enlist { pod: pod_ref(pod) });
    }
}

/// The adopted Deployment's policy follows the spec, for as long as that speaks of it.
pub(crate) fn sync_policy(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    if let Some(adopted) = adopted(snapshot).filter(|r| snapshot.may_sync_policy(r)) {
        draft.act(Action::SyncPolicy { revision: adopted.hash.clone() });
    }
}

/// The Deployment that is the app's, with pods or without.
pub(crate) fn adopted<'a>(snapshot: &Snapshot<'a>) -> Option<&'a Revision> {
    snapshot.revision(&RevisionHash::adopted())
}

/// The same while it is not at 0.
pub(crate) fn under_way<'a>(snapshot: &Snapshot<'a>) -> Option<&'a Revision> {
    adopted(snapshot).filter(|r| r.replicas > 0 || snapshot.pods_of(&r.hash).any(Pod::is_active))
}

/// What keeps the app from beginning, or from going on, if that needs a person.
pub(crate) fn obstacle<'a>(snapshot: &Snapshot<'a>) -> Option<&'a str> {
    match &snapshot.observed.surroundings.adoption {
        Adoption::Waits { message, needs_a_person: true } if is_awaited(snapshot) => Some(message),
        Adoption::Taken { scaler, .. } => scaler.as_deref(),
        Adoption::Waits { .. } | Adoption::Ready { .. } | Adoption::None => None,
    }
}

/// WAITING-FOR, while the app has nothing of its own yet.
pub(crate) fn sentence(snapshot: &Snapshot<'_>) -> Option<String> {
    to_come(snapshot).filter(|_| is_awaited(snapshot)).map(|(_, words)| words)
}

/// That it has yet to begin, and what it waits for.
fn to_come(snapshot: &Snapshot<'_>) -> Option<(Reason, String)> {
    match &snapshot.observed.surroundings.adoption {
        Adoption::Waits { message, .. } => Some((Reason::AdoptionWaits, message.clone())),
        Adoption::Ready { deployment } => {
            Some((Reason::Adopting, format!("Deployment {deployment} is being taken over")))
        }
        Adoption::Taken { .. } | Adoption::None => None,
    }
}

/// Why the Deployment is not drained yet: what is left of it, or that it is not even taken. None where nothing is being adopted.
pub(crate) fn undrained(snapshot: &Snapshot<'_>) -> Option<(Reason, String)> {
    left(snapshot).map(|left| (Reason::Adopting, left)).or_else(|| to_come(snapshot))
}

/// How many of its pods are left, which is not drained yet; none where nothing is being adopted.
fn left(snapshot: &Snapshot<'_>) -> Option<String> {
    let adopted = under_way(snapshot)?;
    let left = adopted.replicas.max(snapshot.remaining_of(&adopted.hash));
    let (pods, are) = if left == 1 { ("pod", "is") } else { ("pods", "are") };
    Some(format!("{left} {pods} of Deployment {} {are} left", adopted.name))
}

/// What its user has to know while it is under way, or cannot begin beside an app that runs.
pub(crate) fn warnings(snapshot: &Snapshot<'_>) -> Vec<Warning> {
    let adopting = |message: String| Warning { reason: Reason::Adopting, message };
    let left = left(snapshot).map(|left| {
        adopting(format!(
            "{left}: until it is at 0, a new pod of it (after an eviction, say) gets clients only once an operator has labelled it, and the Deployment must \
             stay where it is kept: remove it from its repository only when the condition Drained is True"
        ))
    });
    let under_way = left.is_some();
    let others = match &snapshot.observed.surroundings.adoption {
        Adoption::Waits { message, .. } if !under_way && !is_awaited(snapshot) => {
            vec![Warning { reason: Reason::AdoptionWaits, message: message.clone() }]
        }
        Adoption::Taken { warnings, .. } => warnings.iter().cloned().map(adopting).collect(),
        Adoption::Waits { .. } | Adoption::Ready { .. } | Adoption::None => Vec::new(),
    };
    left.into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests;
