//! A Deployment's `spec.replicas`: changed only from the value that was seen.

use graceful_api::names;
use graceful_plan::RevisionHash;
use graceful_plan::retire::may_lower;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::revision::deployment;
use super::{CHANGED, Outcome, Scene};
use crate::error::{Error, call};
use crate::observe::{Kind, live_pods};

pub(super) async fn up(
    scene: &mut Scene<'_>,
    revision: &RevisionHash,
    from: u32,
    to: u32,
) -> Result<Outcome, Error> {
    match deployment(scene, revision) {
        Some(deployment) => set(scene, &deployment, from, to).await,
        None => Ok(CHANGED),
    }
}

/// A live list comes first: a ReplicaSet is never left to choose among pods that may run.
pub(super) async fn down(
    scene: &mut Scene<'_>,
    revision: &RevisionHash,
    from: u32,
    to: u32,
) -> Result<Outcome, Error> {
    let Some(deployment) = deployment(scene, revision) else {
        return Ok(CHANGED);
    };
    let live = live_pods(scene.operator, scene.object, &deployment).await?;
    let pods: Vec<_> = live.into_iter().map(|(pod, _)| pod).collect();
    if !may_lower(to, &pods) {
        return Ok(Outcome::LookAgain("there are more pods that may run"));
    }
    set(scene, &deployment, from, to).await
}

/// By JSON patch with a test of the value seen. Not by resourceVersion: a Deployment's status moves all the time.
pub(super) async fn set(
    scene: &mut Scene<'_>,
    deployment: &Deployment,
    from: u32,
    to: u32,
) -> Result<Outcome, Error> {
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": deployment.metadata.uid},
        {"op": "test", "path": "/spec/replicas", "value": from},
        {"op": "replace", "path": "/spec/replicas", "value": to},
    ]);
    let Ok(patch) = serde_json::from_value(patch).map(Patch::<()>::Json) else {
        return Ok(CHANGED); // cannot be: the patch above is one
    };
    let params =
        PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let api = scene.api::<Deployment>();
    match call("scale a Deployment", api.patch(&deployment.name_any(), &params, &patch)).await {
        Ok(scaled) => {
            scene.memory.written.wrote(Kind::Deployment, &scaled);
            Ok(Outcome::Done)
        }
        // A test that fails is a 422 as well.
        Err(error) if error.not_found() || error.conflict() || error.invalid() => Ok(CHANGED),
        Err(error) => Err(error),
    }
}
