//! What leaves the view and lives on: a Deployment, or a pod, that somebody took our label off. Nothing of it is gone, and nothing of it is the
//! operator's any more.
//!
//! # Flow
//! A revision is no longer in the view and its pods run, or a pod that served is not → one look at the object itself → without our label, it is said
//! once, and what is followed of it is let go.
//!
//! # Caveats
//! A successor does not know what was in the view before: it says nothing of labels that were taken off before it began.

use std::collections::BTreeSet;

use futures::future::join_all;
use graceful_api::{GracefulApp, RevisionHash, names};
use graceful_plan::{Deletion, PodUid};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ObjectMeta, PartialObjectMeta};
use kube::{Api, Client, ResourceExt};
use tracing::debug;

use super::events::{Announced, Happening};
use crate::error::{Error, call, chain};
use crate::observe::Observation;

/// The reason of these Events.
const LABEL_REMOVED: &str = "LabelRemoved";

/// So many pods are looked at in one plan. A person takes single pods aside; where more go at once, they are gone.
const LOOKS: usize = 8;

/// What is remembered of it.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// The revisions of the last view.
    known: BTreeSet<RevisionHash>,
    /// The revisions that have left it since, and that were not looked at yet.
    missing: BTreeSet<RevisionHash>,
}

impl Left {
    /// Revisions that are not in the view any more though pods of theirs live.
    fn missing(&mut self, seen: &Observation) -> Vec<RevisionHash> {
        let there: BTreeSet<_> = seen.observed.revisions.iter().map(|r| r.hash.clone()).collect();
        let living =
            |hash: &RevisionHash| seen.strangers.iter().any(|p| p.is_active() && p.revision == *hash);
        let left: Vec<_> = self.known.difference(&there).cloned().collect();
        self.missing.extend(left);
        self.missing.retain(|hash| !there.contains(hash) && living(hash));
        self.known = there;
        self.missing.iter().cloned().collect()
    }
}

/// Looks at what has left the view; to be asked before it is told what is gone. What cannot be looked at now is looked at again with the next report.
pub(super) async fn left(
    client: &Client,
    app: &GracefulApp,
    seen: &Observation,
    told: &mut Announced,
) -> Vec<Happening> {
    // An app that goes lets go of all it has by itself.
    if seen.observed.app.deletion != Deletion::No || seen.observed.surroundings.namespace_terminating {
        return Vec::new();
    }
    let mut found = Vec::new();
    for hash in told.left.missing(seen) {
        match deployment(client, app, &hash).await {
            Ok(lost) => {
                told.left.missing.remove(&hash);
                if let Some(happening) = lost {
                    told.others.let_go_of(&hash);
                    found.push(happening);
                }
            }
            Err(error) => debug!("{}", chain(&error)),
        }
    }
    let vanished = told.others.vanished(seen).into_iter().take(LOOKS);
    let looks = vanished.map(|(uid, name)| async move {
        let alive = pod(client, app, &uid, &name).await;
        (uid, name, alive)
    });
    for (uid, name, alive) in join_all(looks).await {
        if alive {
            told.others.forget(&uid);
            let namespace = app.namespace().unwrap_or_default();
            let note = format!(
                "pod {name} runs on without its label {}: it is not this app's any more, and the operator does not end it; \
                 `kubectl -n {namespace} delete pod {name}` does, within its grace period",
                names::APP_LABEL
            );
            found.push(Happening::warning(LABEL_REMOVED, note).of(&name, &uid));
        }
    }
    found
}

/// The loss of our label, if that is why the Deployment is not in the view. One that is gone tells itself, by its pods.
async fn deployment(
    client: &Client,
    app: &GracefulApp,
    hash: &RevisionHash,
) -> Result<Option<Happening>, Error> {
    let (owner, namespace) = (app.name_any(), app.namespace().unwrap_or_default());
    let name = names::deployment_name(&owner, &hash.0);
    let api: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let found = call("read a Deployment", api.get_metadata_opt(&name)).await?;
    let ours = |d: &PartialObjectMeta<Deployment>| {
        d.annotations().get(names::APP_UID) == app.metadata.uid.as_ref()
            && d.metadata.deletion_timestamp.is_none()
    };
    let Some(found) = found.filter(ours) else {
        return Ok(None);
    };
    let label = names::APP_LABEL;
    let overwrite = match found.labels().get(label) {
        Some(now) if *now == owner => return Ok(None), // it is back
        Some(_) => " --overwrite",
        None => "",
    };
    let note = format!(
        "Deployment {name} lost its label {label}: the operator leaves it and its pods alone, which run on; \
         `kubectl label deployment -n {namespace} {name} {label}={owner}{overwrite}` puts it back, if its pod template \
         is still the one it had"
    );
    Ok(Some(Happening::warning(LABEL_REMOVED, note)))
}

/// Whether this very pod is there, and stays. Where nobody answers, it is as gone as the view says.
async fn pod(client: &Client, app: &GracefulApp, uid: &PodUid, name: &str) -> bool {
    let api: Api<Pod> = Api::namespaced(client.clone(), &app.namespace().unwrap_or_default());
    let stays = |meta: &ObjectMeta| meta.uid.as_ref() == Some(&uid.0) && meta.deletion_timestamp.is_none();
    match call("read a pod", api.get_metadata_opt(name)).await {
        Ok(found) => found.is_some_and(|pod| stays(&pod.metadata)),
        Err(error) => {
            debug!("{}", chain(&error));
            false
        }
    }
}
