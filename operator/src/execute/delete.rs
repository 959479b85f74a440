//! The DELETE of one pod, and what became of it where nobody says.
//!
//! # Flow
//! DELETE with uid and resourceVersion → where the answer is lost, or may come after the deed: one GET → ended, not ended, or not known.

use graceful_plan::PodRef;
use graceful_plan::refusals::Subject;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use tracing::info;

use super::{CHANGED, Outcome, Scene, pods};
use crate::error::{Error, call, chain};
use crate::unseen_writes::Kind;

/// What became of it.
pub(super) enum Deleted {
    /// The pod is gone or going.
    Ended,
    /// Nothing was ended, for this reason.
    Not(Outcome),
    /// There was no answer, and the pod is still there, or nobody says: the request may come through yet.
    Unknown(Error),
}

/// The grace is the pod's own where none is given. An error is of a DELETE that was not done.
pub(super) async fn delete(
    scene: &mut Scene<'_>,
    pod: &PodRef,
    version: &str,
    grace: Option<u32>,
) -> Result<Deleted, Error> {
    let preconditions =
        Preconditions { uid: Some(pod.uid.0.clone()), resource_version: Some(version.to_owned()) };
    let params = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
    let params = params.preconditions(preconditions);
    match call("delete a pod", scene.api::<Pod>().delete(&pod.name, &params)).await {
        Ok(answer) => {
            ended(scene, pod, answer.left());
            Ok(Deleted::Ended)
        }
        Err(error) if error.not_found() => Ok(Deleted::Ended),
        Err(error) if error.conflict() => Ok(Deleted::Not(CHANGED)),
        Err(error) if error.denial().is_some() => pods::refused(scene, pod, "ended", error).map(Deleted::Not),
        Err(error) if error.not_done() => Err(error),
        Err(error) => Ok(found_out(scene, pod, error).await),
    }
}

/// The answer was lost: the pod itself tells whether it was ended. (That it is still there says only that it is not ended yet.)
async fn found_out(scene: &mut Scene<'_>, pod: &PodRef, error: Error) -> Deleted {
    let stays = |found: &Pod| {
        found.metadata.uid.as_deref() == Some(&pod.uid.0) && found.metadata.deletion_timestamp.is_none()
    };
    match call("read a pod", scene.api::<Pod>().get_opt(&pod.name)).await {
        Ok(found) if !found.as_ref().is_some_and(stays) => {
            info!(pod = pod.name, "ended without an answer: {}", chain(&error));
            ended(scene, pod, found);
            Deleted::Ended
        }
        Ok(_) | Err(_) => {
            scene.writes.brake.ended();
            Deleted::Unknown(error)
        }
    }
}

/// Remembers that it goes; none where it is gone.
fn ended(scene: &mut Scene<'_>, pod: &PodRef, going: Option<Pod>) {
    scene.writes.brake.ended();
    scene.writes.refusals.cleared(&Subject::Pod(pod.uid.clone()));
    let same = |going: &Pod| going.metadata.uid.as_deref() == Some(&pod.uid.0);
    match going.filter(same) {
        Some(going) if going.metadata.deletion_timestamp.is_some() => {
            scene.writes.unseen_writes.record(Kind::Pod, &going);
        }
        Some(_) | None => scene.writes.unseen_writes.record_removal(Kind::Pod, &pod.name, &pod.uid.0),
    }
}
