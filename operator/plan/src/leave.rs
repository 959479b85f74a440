//! The GracefulApp goes and what serves stays (`graceful.dev/leave`): as a plain Deployment, without a restart.
//!
//! # Flow
//! one revision is to stay → the others' pods are replaced and drain, as in a rollout; what drains of the one returns to service → its pods' marks, the budget, the fences of
//! Services → the labels that make the Service and the Deployment ours → the finalizer.
//!
//! # Guarantees
//! Nothing is ended that a rollout would not have ended. No Deployment is made: after a crash between two of the last steps nothing of ours is seen, and only the finalizer
//! is left to take off.
//!
//! # Caveats
//! The revision that stays is the one that the spec asks for, if a pod of it ever worked. In the middle of an adoption, while a pod of the adopted Deployment serves, it is
//! that one: leaving then is the way back.

use graceful_api::{RevisionHash, names};

use crate::action::Action;
use crate::adoption;
use crate::count::count;
use crate::draft::Draft;
use crate::observed::{Child, Deletion, Mark, Observed, Pod, Revision, TemplateVerdict};
use crate::others;
use crate::put_back::{self, resumable_pods};
use crate::snapshot::Snapshot;
use crate::upkeep::has_no_pods;

/// The app as it is to be left: one revision, with the pods that it has. None where it is not leaving, or has nothing that could stay.
pub(crate) fn as_left(observed: &Observed) -> Option<Observed> {
    if observed.app.deletion != Deletion::Leave {
        return None;
    }
    let stays = survivor(observed)?;
    let mut left = observed.clone();
    let app = &mut left.app;
    app.update = stays.hash.clone();
    app.policy = stays.policy;
    // A pause would hold it half-way.
    app.paused = false;
    app.revision_history_limit = 0;
    app.hold_while_busy = false;
    left.surroundings.template = TemplateVerdict::Accepted;
    // What leads to its pods alone leads to those that stay.
    if app.update.is_adopted() {
        left.surroundings.left_behind.clear();
    }
    for revision in left.revisions.iter_mut().filter(|r| r.hash == app.update) {
        revision.policy_current = true;
    }
    Some(left)
}

/// The revision that stays: the adopted one while it serves; else the one that the spec asks for, if it ever worked; else the newest that serves, or did. One that never
/// worked stays only where there is nothing else.
fn survivor(observed: &Observed) -> Option<&Revision> {
    let pods = |r: &Revision| observed.pods.iter().filter(|p| p.is_active() && p.revision == r.hash).count();
    let serves =
        |r: &Revision| observed.pods.iter().any(|p| p.is_active() && p.routed && p.revision == r.hash);
    let with = |hash: &RevisionHash| observed.revisions.iter().find(|r| r.hash == *hash);
    let adopted = with(&RevisionHash::adopted()).filter(|r| serves(r));
    let update = with(&observed.app.update);
    let others = || observed.revisions.iter().filter(|r| r.hash != observed.app.update);
    let proven = update.filter(|r| observed.is_proven(r) || others().all(|o| pods(o) == 0));
    let newest = || others().filter(|r| serves(r)).max_by_key(|r| (r.created, &r.hash));
    // Its pods drain all at once, as one alone does without surge: they return to service.
    let worked = || others().filter(|r| observed.is_proven(r) && pods(r) > 0).max_by_key(|r| r.created);
    let last = || others().max_by_key(|r| (pods(r), r.created));
    adopted.or(proven).or_else(newest).or_else(worked).or(update).or_else(last)
}

/// What drains of the revision that stays returns to service, however many the spec asks for: nobody is left to end it.
pub(crate) fn put_back(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    for pod in resumable_pods(snapshot, snapshot.update()) {
        put_back::put_back(snapshot, draft, pod);
    }
}

/// Lets go of what is at rest. False while there is something to wait for.
pub(crate) fn finish(snapshot: &Snapshot<'_>, draft: &mut Draft) -> bool {
    if !is_at_rest(snapshot) || others::ends_behind_a_fence(snapshot).is_some() {
        return false;
    }
    let around = &snapshot.observed.surroundings;
    let waits = |r: &Revision| snapshot.backs_off(r.annotation_backoff.as_ref());
    let late = around.children_backoff.iter().any(|h| snapshot.backs_off(Some(h)));
    if late || snapshot.observed.revisions.iter().any(waits) {
        return true;
    }
    if around.budget != Child::AsWanted {
        draft.act(Action::SyncBudget);
    }
    unfence(snapshot, draft);
    // A Service that asked for the label would send nobody to pods that the Deployment makes without it.
    if !around.fenced.is_empty() {
        return true;
    }
    if around.service != Child::AsWanted {
        let name = names::service_name(&snapshot.observed.app.name);
        if snapshot.backs_off(around.services_backoff.get(&name)) {
            return true;
        }
        draft.act(Action::LetGoService);
    }
    // The one that stays goes last: whoever comes after a crash in between finds it in view, and makes no pods of another in its place.
    let (stays, others): (Vec<_>, Vec<_>) =
        snapshot.observed.revisions.iter().partition(|r| r.hash == *snapshot.update());
    for revision in others.into_iter().chain(stays) {
        draft.act(Action::LetGo { revision: revision.hash.clone() });
    }
    draft.act(Action::ReleaseFinalizer);
    true
}

/// The user's Services select as they did before they were fenced for an adoption. False while one is left alone for now.
pub(crate) fn unfence(snapshot: &Snapshot<'_>, draft: &mut Draft) -> bool {
    let around = &snapshot.observed.surroundings;
    let (later, now): (Vec<_>, Vec<_>) =
        around.fenced.iter().partition(|service| snapshot.backs_off(around.services_backoff.get(*service)));
    for service in now {
        draft.act(Action::Unfence { service: service.clone() });
    }
    later.is_empty()
}

/// One revision has all the pods there are: nothing drains, nor is about to for its node, and nothing of it carries a mark of ours. Whether it serves is its own matter then:
/// nothing of ours could help it.
fn is_at_rest(snapshot: &Snapshot<'_>) -> bool {
    let stays = snapshot.update();
    // Without our budget, whoever drains a node ends what is busy there. (Where Services keep drains from starting, that would be waited for in vain.)
    let moves = |p: &Pod| !p.stays() && snapshot.services_are_fenced();
    let at_rest = |p: &Pod| {
        p.revision == *stays
            && p.routed
            && p.drain.is_none()
            && !p.bridged
            && p.mark == Mark::Absent
            && !moves(p)
    };
    // What is missing its ReplicaSet makes; what is too many it would end.
    let follows = |r: &Revision| snapshot.remaining_of(&r.hash) <= r.replicas && r.followed;
    snapshot.remaining.iter().all(|p| at_rest(p))
        && snapshot.observed.revisions.iter().all(|r| match r.hash == *stays {
            true => follows(r),
            // History that is ours goes first.
            false => r.hash.is_adopted() && has_no_pods(snapshot, r),
        })
}

/// WAITING-FOR.
pub(crate) fn sentence(snapshot: &Snapshot<'_>) -> String {
    let Some(stays) = snapshot.revision(snapshot.update()) else {
        return "its finalizer is being removed; nothing that it made is left".to_owned();
    };
    let left = snapshot.remaining.iter().filter(|p| snapshot.is_superseded(p));
    let back = if adoption::adopted(snapshot).is_some_and(|r| r.hash == stays.hash) { " again" } else { "" };
    match (count(left), others::why_fences_stay(snapshot)) {
        (0, Some(words)) => words,
        (0, None) => format!("Deployment {} is about to be a plain one{back}", stays.name),
        (n, _) => format!(
            "Deployment {} stays, as a plain one{back}, once the others' pods have drained ({n} left)",
            stays.name
        ),
    }
}

#[cfg(test)]
mod tests;
