//! Whether an app goes, and how; and whether its namespace does.

use std::time::Duration;

use graceful_api::{GracefulApp, names};
use graceful_plan::{Deletion, Observed};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt};

use super::Sightings;
use crate::error::{Error, call};
use crate::writes::Writes;

/// A quota may keep pods from being made for days: the namespace is not asked for in each plan of these.
const NAMESPACE_READ_EVERY: Duration = Duration::from_secs(30);

/// A Deployment of that age has its pods, or something keeps them away.
const UNMADE: SignedDuration = SignedDuration::from_secs(30);

/// Foreground and background deletions drain; with `--cascade=orphan` the API server adds the finalizer `orphan`, which stays for a moment.
pub(super) fn deletion(app: &GracefulApp, orphaned: bool) -> Deletion {
    if app.metadata.deletion_timestamp.is_none() {
        Deletion::No
    } else if orphaning(app) || orphaned {
        Deletion::Orphan
    } else if app.annotations().get(names::LEAVE).is_some_and(|v| v == "true") {
        Deletion::Leave
    } else {
        Deletion::Drain
    }
}

/// Whether this is a deletion with `--cascade=orphan`, while the garbage collector has not removed the `orphan` finalizer yet.
pub(crate) fn orphaning(app: &GracefulApp) -> bool {
    app.metadata.deletion_timestamp.is_some() && app.finalizers().iter().any(|f| f == "orphan")
}

/// A namespace that goes ends its pods first; our own object may be told minutes later. Pods that somebody ends and pods that cannot be made are
/// how it shows.
pub(super) fn suspects_its_namespace(
    observed: &Observed,
    writes: &Writes,
    sightings: &Sightings,
    now: Timestamp,
) -> bool {
    let ended = observed.pods.iter().any(|p| p.terminating && p.routed);
    let failing = observed.revisions.iter().any(|r| r.replica_failure.is_some());
    // Of one that goes, a ReplicaSet makes no pod, and after our restart nobody says why.
    let old = |r: &graceful_plan::Revision| now.duration_since(r.created) > UNMADE;
    let lives = |r: &graceful_plan::Revision| {
        observed.pods.iter().filter(|p| p.is_active() && p.revision == r.hash).count()
    };
    let unmade = observed.revisions.iter().any(|r| old(r) && lives(r) < r.replicas as usize);
    let lately = sightings.namespace_read.is_some_and(|at| at.elapsed() < NAMESPACE_READ_EVERY);
    (ended || failing || unmade) && !lately && !writes.namespace_terminating
}

pub(super) async fn namespace_terminates(client: &Client, namespace: &str) -> Result<bool, Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    let found = call("read the namespace", api.get_opt(namespace)).await?;
    Ok(found.is_none_or(|n| n.metadata.deletion_timestamp.is_some()))
}
