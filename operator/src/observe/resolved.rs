//! What the user asks for, as the planner is given it.

use graceful_api::{Disruption, GracefulApp, ReplaceWhen, RevisionHash, Validated, names};
use graceful_plan::{App, Backoff, Deletion};
use kube::ResourceExt;

use super::revisions;

/// What the user asks for. An app that goes and whose spec makes no sense wants nothing but to drain.
pub(super) fn resolved(
    app: &GracefulApp,
    valid: Option<&Validated>,
    deletion: Deletion,
    finalizer_backoff: Option<Backoff>,
) -> App {
    let finalizer = app.finalizers().iter().any(|f| f == names::FINALIZER);
    match valid {
        Some(valid) => App {
            name: valid.name.clone(),
            namespace: valid.namespace.clone(),
            replicas: valid.replicas,
            update: RevisionHash(valid.revision.0.clone()),
            policy: valid.policy.drain,
            max_surge: valid.budget.surge,
            max_unavailable: valid.budget.unavailable,
            min_ready_seconds: valid.min_ready_seconds,
            progress_deadline_seconds: valid.progress_deadline_seconds,
            surge_timeout_seconds: valid.surge_timeout_seconds,
            replace_when: valid.replace_when,
            paused: valid.paused,
            revision_history_limit: valid.revision_history_limit,
            hold_while_busy: valid.disruption == Disruption::HoldWhileBusy,
            deletion,
            finalizer,
            finalizer_backoff,
        },
        None => App {
            name: app.name_any(),
            namespace: app.namespace().unwrap_or_default(),
            replicas: 0,
            update: RevisionHash(String::new()),
            policy: revisions::CAUTIOUS,
            max_surge: 0,
            max_unavailable: 1,
            min_ready_seconds: 0,
            progress_deadline_seconds: u32::MAX,
            surge_timeout_seconds: u32::MAX,
            replace_when: ReplaceWhen::Drained,
            paused: false,
            revision_history_limit: 0,
            hold_while_busy: false,
            deletion,
            finalizer,
            finalizer_backoff,
        },
    }
}
