//! Ends one pod: live list, last look, DELETE of exactly what was looked at, and at once one replica less.
//!
//! # Flow
//! live list → [`retire::check`] → (cut: the count goes on the pod) → DELETE with uid and resourceVersion, full grace → scale to `scale_to`.
//!
//! # Guarantees
//! A pod that was put back to serving or re-marked since the list is not deleted. The scale follows the DELETE within the same breath; if it
//! fails it is never tried again, since the spare may run by then and a busy pod would be taken in its place.

use std::time::{Duration, Instant};

use graceful_api::names;
use graceful_plan::retire::{self, Verdict};
use graceful_plan::{PodRef, Proof, RevisionHash};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};
use serde_json::json;
use tokio::time::timeout;
use tracing::warn;

use super::revision::deployment;
use super::{CHANGED, Outcome, Scene, pods, scale};
use crate::error::{Error, call, chain};
use crate::observe::{Kind, live_pods};
use crate::probe::AppRef;

/// How long after the DELETE was sent the scale may follow, and how long it may take. A spare needs about as long to be scheduled and started;
/// once it runs, the ReplicaSet would choose between it and its busy siblings (a wrong one 4 of 4 times when the scale came 1–4 s late).
const AT_ONCE: Duration = Duration::from_millis(500);

pub(super) async fn retire(
    scene: &mut Scene<'_>,
    pod: &PodRef,
    revision: &RevisionHash,
    replicas: u32,
    proof: Proof,
) -> Result<Outcome, Error> {
    let Some(deployment) = deployment(scene, revision) else {
        return Ok(CHANGED);
    };
    let live = live_pods(scene.operator, scene.object, &deployment).await?;
    let version = live.iter().find(|(p, _)| p.uid == pod.uid).map(|(_, version)| version.clone());
    let live: Vec<_> = live.into_iter().map(|(pod, _)| pod).collect();
    let (scale_to, mut version) = match (retire::check(&pod.uid, proof, replicas, &live), version) {
        (Verdict::Go { scale_to }, Some(version)) => (scale_to, version),
        (Verdict::Go { .. }, None) => return Ok(CHANGED),
        (Verdict::Void(why), _) => return Ok(Outcome::LookAgain(why)),
    };
    if let Proof::Cut { tasks, .. } = proof {
        match count_cut(scene, pod, &version, tasks).await? {
            Some(counted) => version = counted,
            None => return Ok(CHANGED),
        }
    }
    let sent = Instant::now();
    if !delete(scene, pod, &version).await? {
        return Ok(CHANGED);
    }
    scene.operator.probes.hush(&AppRef::from_obj(scene.object), &pod.uid);
    if let Proof::Cut { tasks, .. } = proof {
        let cut = scene.memory.cut.get_or_insert_default();
        cut.pods += 1;
        cut.tasks += tasks.unwrap_or_default();
        scene.memory.reported = None; // the one figure that cannot be observed again is written at once
    }
    if scale_to != replicas {
        if sent.elapsed() > AT_ONCE {
            warn!(
                deployment = deployment.name_any(),
                "not scaled to {scale_to} after a retirement: too late for it"
            );
            return Ok(Outcome::LookAgain("the DELETE took long, and a spare may run"));
        }
        let scaled = timeout(AT_ONCE, scale::set(scene, &deployment, replicas, scale_to));
        match scaled.await.unwrap_or(Ok(Outcome::LookAgain("the scale took too long"))) {
            Ok(Outcome::Done | Outcome::Refused(_)) => {}
            Ok(Outcome::LookAgain(why)) => {
                warn!(
                    deployment = deployment.name_any(),
                    "not scaled to {scale_to} after a retirement: {why}"
                );
                return Ok(CHANGED);
            }
            Err(error) => {
                warn!(
                    deployment = deployment.name_any(),
                    "not scaled to {scale_to} after a retirement: {}",
                    chain(&error)
                );
                return Ok(Outcome::LookAgain("its replica was not taken back"));
            }
        }
    }
    Ok(Outcome::Done)
}

/// The count goes on the pod before the DELETE: what was cut can be read off it for as long as it is there.
async fn count_cut(
    scene: &Scene<'_>,
    pod: &PodRef,
    version: &str,
    tasks: Option<u64>,
) -> Result<Option<String>, Error> {
    let cut = tasks.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    match pods::annotate(scene, pod, version, &json!({}), &json!({(names::CUT): cut})).await {
        Ok(written) => Ok(written.resource_version()),
        Err(error) if error.not_found() || error.conflict() => Ok(None),
        Err(error) => Err(error),
    }
}

/// False where the pod is no longer what was looked at. The grace period is the pod's own.
async fn delete(scene: &mut Scene<'_>, pod: &PodRef, version: &str) -> Result<bool, Error> {
    let preconditions =
        Preconditions { uid: Some(pod.uid.0.clone()), resource_version: Some(version.to_owned()) };
    let params = DeleteParams::default().preconditions(preconditions);
    match call("delete a pod", scene.api::<Pod>().delete(&pod.name, &params)).await {
        Ok(answer) => {
            match answer.left() {
                Some(going) if going.metadata.deletion_timestamp.is_some() => {
                    scene.memory.written.wrote(Kind::Pod, &going);
                }
                Some(_) | None => scene.memory.written.removed(Kind::Pod, &pod.name, &pod.uid.0),
            }
            Ok(true)
        }
        Err(error) if error.not_found() => Ok(true),
        Err(error) if error.conflict() => Ok(false),
        Err(error) => Err(error),
    }
}
