//! Out of service and back: one patch each, on exactly the pod that was seen.

use std::collections::BTreeMap;

use graceful_api::names;
use graceful_plan::{DrainMark, Epoch, PodRef};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{CHANGED, Outcome, Scene, linger};
use crate::error::{Error, call};
use crate::observe::Kind;
use crate::refusals::Of;

/// Unroutes, and protects one that may be at work: no new connections reach it, and its ReplicaSet takes any other pod first. Established ones live on.
pub(super) async fn unroute(
    scene: &mut Scene<'_>,
    pod: &PodRef,
    epoch: Epoch,
    DrainMark { reason, since }: DrainMark,
    protected: bool,
) -> Result<Outcome, Error> {
    let annotations = json!({
        (names::DRAIN_EPOCH): epoch.to_string(),
        (names::DRAIN_REASON): reason.as_str(),
        (names::DRAIN_SINCE): since.to_string(),
        (names::POD_DELETION_COST): protected.then_some(names::DRAINING_DELETION_COST),
        // Of a cut that was refused: what is counted as cut must have been cut.
        (names::CUT): null,
    });
    let Some(version) = scene.seen.versions.get(&pod.uid).cloned() else {
        return Ok(CHANGED);
    };
    match linger::begin(scene, pod, &version).await? {
        Ok(version) => {
            patch(scene, pod, &version, &json!({(names::SERVING_LABEL): null}), &annotations).await
        }
        Err(undone) => Ok(undone),
    }
}

/// Back to serving: the pod first, its app after (`DELETE /drain` is a conversation). A pod that takes no new work yet answers 503 for moments.
pub(super) async fn put_back(scene: &mut Scene<'_>, pod: &PodRef, epoch: Epoch) -> Result<Outcome, Error> {
    let annotations = json!({
        (names::DRAIN_EPOCH): epoch.to_string(),
        (names::DRAIN_REASON): null,
        (names::DRAIN_SINCE): null,
        (names::POD_DELETION_COST): null,
        (names::CUT): null,
    });
    let Some(version) = scene.seen.versions.get(&pod.uid).cloned() else {
        return Ok(CHANGED);
    };
    patch(scene, pod, &version, &json!({(names::SERVING_LABEL): names::SERVING}), &annotations).await
}

async fn patch(
    scene: &mut Scene<'_>,
    pod: &PodRef,
    version: &str,
    labels: &Value,
    annotations: &Value,
) -> Result<Outcome, Error> {
    match annotate(scene, pod, version, labels, annotations).await {
        Ok(written) => {
            scene.memory.written.wrote(Kind::Pod, &written);
            if !is_as_asked(written.labels(), labels) || !is_as_asked(written.annotations(), annotations) {
                let how = "an admission webhook or policy changes the labels or annotations that we write; exempt pods with the label graceful.dev/app \
                           from it";
                let altered = Error::Altered { what: "write to a pod", how: how.to_owned() };
                return refused(scene, pod, "changed", altered);
            }
            scene.memory.refusals.cleared(&Of::Pod(pod.uid.clone()));
            Ok(Outcome::Done)
        }
        Err(error) if error.not_found() || error.conflict() => Ok(CHANGED),
        Err(error) => refused(scene, pod, "changed", error),
    }
}

/// Each value as it was written, and none where it was taken away.
fn is_as_asked(written: &BTreeMap<String, String>, asked: &Value) -> bool {
    let mut all = asked.as_object().into_iter().flatten();
    all.all(|(key, value)| written.get(key).map(String::as_str) == value.as_str())
}

/// Remembers that the API server does not let us write to this pod; the others go on without it. Any other failure is the whole plan's.
pub(super) fn refused(
    scene: &mut Scene<'_>,
    pod: &PodRef,
    what: &str,
    error: Error,
) -> Result<Outcome, Error> {
    let (of, name) = (Of::Pod(pod.uid.clone()), &pod.name);
    super::hindered(scene, of, error, |why| format!("pod {name} cannot be {what}: {why}"))
}

/// One merge patch that holds for this uid and resourceVersion alone.
pub(super) async fn annotate(
    scene: &Scene<'_>,
    pod: &PodRef,
    version: &str,
    labels: &Value,
    annotations: &Value,
) -> Result<Pod, Error> {
    let patch = json!({"metadata": {
        "uid": pod.uid.0,
        "resourceVersion": version,
        "labels": labels,
        "annotations": annotations,
    }});
    let params =
        PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    call("write to a pod", scene.api::<Pod>().patch(&pod.name, &params, &Patch::Merge(patch))).await
}
