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
use crate::others;
use crate::proofs;
use crate::retire::retire;
use crate::rollout;
use crate::snapshot::Snapshot;
use crate::spares;
use crate::unroute::unroute;
use crate::upkeep;

/// Every pod drains; the Service goes once none lingers, the other children once all pods have ended, the finalizer last.
///
/// Of terminating pods it waits for those that drain themselves, while their node is heard (`handed_over`), and before a user's Service selects as it did before its
/// adoption, for all that may still accept (`others::ends_behind_a_fence`). Queue workers that their ReplicaSet has yet to delete are waited for as well. In a terminating namespace nothing is: all is being taken there anyway.
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
    let drained = snapshot.remaining.is_empty() && !works && others::ends_behind_a_fence(snapshot).is_none();
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

#[cfg(test)]
mod tests {
    use graceful_api::{RevisionHash, Signal};
    use jiff::Timestamp;

    use super::*;
    use crate::clock::{after, seconds};
    use crate::fixture;
    use crate::observed::{Containers, Deletion, Kubelet, Observed, Revision};

    /// P1: a stranger lost 67 tasks to pods that had been found idle and deleted, and were sent clients once more.
    #[test]
    fn a_service_is_not_given_back_while_a_pod_behind_it_ends() {
        let now = Timestamp::UNIX_EPOCH;
        let mut app = fixture::app(1, fixture::policy(Signal::Http));
        app.deletion = Deletion::Drain;
        let adopted = RevisionHash::adopted();
        let ends = Pod {
            revision: adopted.clone(),
            terminating: true,
            routed: false,
            grace_ends: Some(after(now, seconds(60))),
            ..fixture::serving("web-1")
        };
        let mut seen = Observed {
            pods: vec![ends],
            revisions: vec![Revision { replicas: 0, ..fixture::revision("adopted") }],
            ..fixture::observed(app)
        };
        seen.surroundings.fenced = vec!["web".to_owned()];
        let plan_at = |seen: &Observed, second| crate::plan(seen, after(now, seconds(second)));
        let given_back = |seen: &Observed, second| !plan_at(seen, second).actions.is_empty();

        let planned = plan_at(&seen, 59);
        assert_eq!(planned.actions, []);
        let said = &planned.report.waiting_for;
        assert!(said.contains("web-1") && said.contains("until 1970-01-01T00:01:00Z"), "{said}");
        assert_eq!(planned.wake_at, Some(after(now, seconds(60))));
        let planned = plan_at(&seen, 60);
        assert!(planned.actions.contains(&Action::Unfence { service: "web".to_owned() }), "its time is over");
        assert!(planned.actions.contains(&Action::LetGo { revision: adopted }));

        let mut other = seen.clone();
        other.pods[0].containers = Containers::Finished;
        assert!(given_back(&other, 59), "it accepts nothing any more");
        let mut other = seen.clone();
        other.pods[0].node.kubelet = Kubelet::Silent;
        assert!(given_back(&other, 59), "nobody will say when it has ended");
        seen.surroundings.fenced.clear();
        assert!(given_back(&seen, 59), "no Service leads there");
    }
}
