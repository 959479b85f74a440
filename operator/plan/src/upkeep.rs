//! What stands around the pods: finalizer, Service, budget, policy, history.

use crate::action::Action;
use crate::adoption;
use crate::draft::Draft;
use crate::observed::{Child, Containers, Revision, TemplateVerdict};
use crate::snapshot::Snapshot;

/// Before anything is made that needs cleaning up.
pub(crate) fn claim(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    if !snapshot.backs_off(snapshot.observed.app.finalizer_backoff.as_ref()) {
        draft.act(Action::AddFinalizer);
    }
}

/// Children that follow the spec, whatever the rollout does.
pub(crate) fn children(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    let around = &snapshot.observed.surroundings;
    of_deployments(snapshot, draft);
    adoption::sync_policy(snapshot, draft);
    if around.service != Child::AsWanted {
        draft.act(Action::SyncService);
    }
    if around.budget != Child::AsWanted {
        draft.act(Action::SyncBudget);
    }
    match snapshot.revision(snapshot.update()) {
        Some(update) if snapshot.may_sync_policy(update) => {
            draft.act(Action::SyncPolicy { revision: update.hash.clone() });
        }
        None if asks(&around.template) && !snapshot.may_be_made() => {
            draft.act(Action::DryRunTemplate { revision: snapshot.update().clone() });
        }
        Some(_) | None => {}
    }
}

/// Annotations that do not follow from the spec.
pub(crate) fn of_deployments(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    record_proven(snapshot, draft);
    nudge(snapshot, draft);
}

/// The API server has not said yet whether it would take the template, or is asked once more.
fn asks(verdict: &TemplateVerdict) -> bool {
    match verdict {
        TemplateVerdict::Unknown | TemplateVerdict::RefusedBefore(_) => true,
        TemplateVerdict::Unanswered { ask_again, .. } => *ask_again,
        TemplateVerdict::Accepted | TemplateVerdict::Awaits(_) | TemplateVerdict::Refused(_) => false,
    }
}

/// First, since what follows reads it: once a pod of a revision has worked, its pods are always drained before they are ended.
pub(crate) fn record_proven(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    for revision in snapshot.observed.revisions.iter().filter(|r| !r.proven) {
        if snapshot.observed.is_proven(revision) && !snapshot.backs_off(revision.annotation_backoff.as_ref())
        {
            draft.act(Action::RecordProven { revision: revision.hash.clone() });
        }
    }
}

/// Writes to Deployments whose controllers have given them up, or wait long before they try again: see [`crate::Lags`].
pub(crate) fn nudge(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    let due = |r: &&Revision| snapshot.observed.lags.get(&r.hash).is_some_and(|lag| lag.nudge);
    for revision in snapshot.observed.revisions.iter().filter(due) {
        if !snapshot.backs_off(revision.annotation_backoff.as_ref()) {
            draft.act(Action::Nudge { revision: revision.hash.clone() });
        }
    }
}

/// Deployments without replicas and pods beyond the limit, the oldest first.
pub(crate) fn history(snapshot: &Snapshot<'_>, draft: &mut Draft) {
    let mut without_pods: Vec<_> = snapshot
        .observed
        .revisions
        .iter()
        // An adopted one is the user's.
        .filter(|r| r.hash != *snapshot.update() && !r.hash.is_adopted() && has_no_pods(snapshot, r))
        .collect();
    without_pods.sort_by_key(|r| (r.created, &r.hash));
    let limit = usize::try_from(snapshot.observed.app.revision_history_limit).unwrap_or(usize::MAX);
    let surplus = without_pods.len().saturating_sub(limit);
    for revision in without_pods.into_iter().take(surplus) {
        if snapshot.backs_off(revision.annotation_backoff.as_ref()) {
            continue;
        }
        draft.act(Action::DeleteRevision { revision: revision.hash.clone() });
    }
}

/// No pod left, not even a terminating one: it would be collected with its ReplicaSet. The record of a finished one holds up nothing.
pub(crate) fn has_no_pods(snapshot: &Snapshot<'_>, revision: &Revision) -> bool {
    revision.replicas == 0 && snapshot.pods_of(&revision.hash).all(|p| p.containers == Containers::Finished)
}
