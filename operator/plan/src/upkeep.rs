//! What stands around the pods: finalizer, Service, budget, policy, history; and what a deletion leaves.

use graceful_api::DrainReason;

use crate::action::Action;
use crate::census::Census;
use crate::draft::Draft;
use crate::drains;
use crate::futile;
use crate::observed::{Child, Container, Pod, Readiness, Revision, TemplateVerdict};
use crate::rollout::{self, undrained, unroute};

/// Before anything is made that needs cleaning up.
pub(crate) fn claim(census: &Census<'_>, draft: &mut Draft) {
    if !draft.hindered(census, census.observed.app.unclaimed.as_ref()) {
        draft.act(Action::AddFinalizer);
    }
}

/// Children that follow the spec, whatever the rollout does.
pub(crate) fn children(census: &Census<'_>, draft: &mut Draft) {
    let around = &census.observed.surroundings;
    mark_proven(census, draft);
    if around.service != Child::AsWanted {
        draft.act(Action::SyncService);
    }
    if around.budget != Child::AsWanted {
        draft.act(Action::SyncBudget);
    }
    match census.revision(census.update()) {
        Some(update) if !update.policy_current && !draft.hindered(census, update.unannotated.as_ref()) => {
            draft.act(Action::SyncPolicy { revision: update.hash.clone() });
        }
        None if asks(&around.template) && !census.may_be_made() => {
            draft.act(Action::DryRunTemplate { revision: census.update().clone() });
        }
        Some(_) | None => {}
    }
}

/// The API server has not said yet whether it would take the template, or is asked once more.
fn asks(verdict: &TemplateVerdict) -> bool {
    matches!(verdict, TemplateVerdict::Unknown | TemplateVerdict::RefusedBefore(_))
}

/// Before anything that it might save: a revision that worked once is drained for good, whatever becomes of its pods.
fn mark_proven(census: &Census<'_>, draft: &mut Draft) {
    let worked = |p: &Pod| p.readiness != Readiness::Never || census.answer(p).is_some();
    for revision in census.observed.revisions.iter().filter(|r| !r.proven) {
        if census.pods_of(&revision.hash).any(worked)
            && !draft.hindered(census, revision.unannotated.as_ref())
        {
            draft.act(Action::MarkProven { revision: revision.hash.clone() });
        }
    }
}

/// Emptied Deployments beyond the limit, the oldest first.
pub(crate) fn history(census: &Census<'_>, draft: &mut Draft) {
    let mut emptied: Vec<_> =
        census.observed.revisions.iter().filter(|r| r.hash != *census.update() && empty(census, r)).collect();
    emptied.sort_by_key(|r| (r.created, &r.hash));
    let limit = usize::try_from(census.observed.app.revision_history_limit).unwrap_or(usize::MAX);
    let surplus = emptied.len().saturating_sub(limit);
    for revision in emptied.into_iter().take(surplus) {
        if draft.hindered(census, revision.unannotated.as_ref()) {
            continue;
        }
        draft.act(Action::DeleteRevision { revision: revision.hash.clone() });
    }
}

/// No pod left, not even a terminating one: it would be collected with its ReplicaSet. The record of a finished one holds up nothing.
fn empty(census: &Census<'_>, revision: &Revision) -> bool {
    revision.replicas == 0 && census.pods_of(&revision.hash).all(|p| p.container == Container::Finished)
}

/// The GracefulApp goes: every pod drains, then the children go, then the finalizer.
///
/// It never waits for terminating pods (their node may be lost), nor in a terminating namespace (all is being taken there anyway).
pub(crate) fn delete(census: &Census<'_>, draft: &mut Draft) {
    if !census.observed.app.finalizer {
        return;
    }
    if census.observed.surroundings.namespace_terminating {
        draft.act(Action::ReleaseFinalizer);
        return;
    }
    futile::stop(census, draft);
    drains::unroute_spares(census, draft);
    rollout::protect(census, draft);
    for pod in census.live.iter().filter(|p| p.serving || p.drain.is_none()) {
        if let Some(proof) = undrained(census, pod) {
            draft.retire(census, pod, proof);
        } else {
            unroute(census, draft, pod, DrainReason::Delete);
        }
    }
    drains::end_lingers(census, draft);
    drains::settle(census, draft);
    for revision in &census.observed.revisions {
        let live = census.live_of(&revision.hash);
        if revision.replicas > live
            && !draft.has_scaled(&revision.hash)
            && !draft.hindered(census, revision.hindrance.as_ref())
        {
            let (revision, from) = (revision.hash.clone(), revision.replicas);
            draft.act(Action::ScaleDown { revision, from, to: live });
        }
    }
    if census.live.is_empty() && census.observed.revisions.iter().all(|r| r.replicas == 0) {
        remove_children(census, draft);
    }
}

fn remove_children(census: &Census<'_>, draft: &mut Draft) {
    for revision in &census.observed.revisions {
        draft.act(Action::DeleteRevision { revision: revision.hash.clone() });
    }
    let around = &census.observed.surroundings;
    if around.service != Child::AsWanted {
        draft.act(Action::SyncService);
    }
    if around.budget != Child::AsWanted {
        draft.act(Action::SyncBudget);
    }
    draft.act(Action::ReleaseFinalizer);
}

/// `--cascade=orphan`: the Deployments and the Service stay as they are; the budget would block every eviction for ever, so it goes.
pub(crate) fn orphan(census: &Census<'_>, draft: &mut Draft) {
    if !census.observed.app.finalizer {
        return;
    }
    if census.observed.surroundings.budget != Child::AsWanted {
        draft.act(Action::SyncBudget);
    }
    draft.act(Action::ReleaseFinalizer);
}
