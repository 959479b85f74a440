//! The GracefulApp goes: what is drained first, what is removed then, and what is left.

use graceful_api::DrainReason;

use crate::action::Action;
use crate::adoption;
use crate::bridge;
use crate::creation_backoff;
use crate::draft::Draft;
use crate::drains;
use crate::endpoints::linger_is_over;
use crate::leave;
use crate::observed::{Child, Pod};
use crate::proofs;
use crate::retire::retire;
use crate::rollout;
use crate::snapshot::Snapshot;
use crate::spares;
use crate::unroute::unroute;
use crate::upkeep;

/// Every pod drains; the Service goes once none lingers, the other children once all pods have ended, the finalizer last.
///
/// Of terminating pods it waits for those that drain themselves, while their node is heard (`handed_over`), and for no others. Queue workers that their ReplicaSet
/// has yet to delete are waited for as well. In a terminating namespace nothing is: all is being taken there anyway.
pub(crate) fn drain(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    if !snapshot.observed.app.finalizer {
        return;
    }
    if snapshot.observed.surroundings.namespace_terminating {
        draft.act(Action::ReleaseFinalizer);
        return;
    }
    adoption::enlist(snapshot, draft);
    creation_backoff::stop(snapshot, draft);
    upkeep::record_proven(snapshot, draft);
    upkeep::nudge(snapshot, draft);
    spares::unroute(snapshot, draft);
    rollout::protect(snapshot, draft);
    for pod in snapshot.remaining.iter().filter(|p| p.routed || p.drain.is_none()) {
        if let Some(proof) = proofs::needs_no_drain(snapshot, pod) {
            retire(snapshot, draft, pod, proof);
        } else {
            unroute(snapshot, draft, pod, DrainReason::Delete);
        }
    }
    bridge::remove(snapshot, draft);
    drains::end_drained(snapshot, draft);
    remove_service_first(snapshot, draft);
    for revision in &snapshot.observed.revisions {
        let remaining = snapshot.remaining_of(&revision.hash);
        if revision.replicas > remaining && !snapshot.backs_off(revision.scale_backoff.as_ref()) {
            let (revision, from) = (revision.hash.clone(), revision.replicas);
            draft.act(Action::ScaleDown { revision, from, to: remaining });
        }
    }
    let works = snapshot.handed_over_running().chain(snapshot.condemned_workers()).next().is_some();
    let drained = snapshot.remaining.is_empty() && !works;
    if drained && snapshot.observed.revisions.iter().all(|r| r.replicas == 0) {
        remove_children(snapshot, draft);
    }
}

/// Once no pod is routed to, and none lingers any more, the Service goes, ahead of the other children: a spare that its ReplicaSet makes all the same, while
/// nobody looks perhaps, finds no clients.
fn remove_service_first(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    let lingers = |p: &Pod| p.bridged || p.drain.is_none_or(|note| !linger_is_over(snapshot, p, note));
    let no_clients_left = snapshot.routed().next().is_none() && !snapshot.unrouted().any(lingers);
    if no_clients_left
        && !children_back_off(snapshot)
        && !snapshot.remaining.is_empty()
        && snapshot.observed.surroundings.service != Child::AsWanted
    {
        draft.act(Action::SyncService);
    }
}

/// The last removal of the Service or the budget was refused just now, or had no answer.
fn children_back_off(snapshot: &Snapshot<'_>) -> bool {
    snapshot.observed.surroundings.children_backoff.iter().any(|b| snapshot.backs_off(Some(b)))
}

fn remove_children(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    let mut all_go = true;
    for revision in &snapshot.observed.revisions {
        // What we did not make is not ours to delete.
        if !revision.hash.is_adopted() {
            draft.act(Action::DeleteRevision { revision: revision.hash.clone() });
        } else if snapshot.backs_off(revision.annotation_backoff.as_ref()) {
            all_go = false;
        } else {
            draft.act(Action::LetGo { revision: revision.hash.clone() });
        }
    }
    all_go &= leave::unfence(snapshot, draft);
    // What is refused is tried again after a pause, and the finalizer goes after all of it.
    if !all_go || children_back_off(snapshot) {
        return;
    }
    let around = &snapshot.observed.surroundings;
    if around.service != Child::AsWanted {
        draft.act(Action::SyncService);
    }
    if around.budget != Child::AsWanted {
        draft.act(Action::SyncBudget);
    }
    draft.act(Action::ReleaseFinalizer);
}

/// `--cascade=orphan`: the Deployments and the Service stay as they are; the budget would block every eviction for ever, so it goes.
pub(crate) fn orphan(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    if !snapshot.observed.app.finalizer {
        return;
    }
    if snapshot.observed.surroundings.budget != Child::AsWanted {
        draft.act(Action::SyncBudget);
    }
    draft.act(Action::ReleaseFinalizer);
}
