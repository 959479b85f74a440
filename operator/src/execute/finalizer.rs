//! Our finalizer: on before anything is made that needs cleaning up, off when nothing of ours is left.

use graceful_api::{GracefulApp, names};
use graceful_plan::refusals::Subject;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::json;

use super::{CHANGED, Outcome, Scene};
use crate::decode::Decoded;
use crate::error::{Error, call};
use crate::merge::{Mode, merge};

pub(super) async fn add(scene: &mut Scene<'_>) -> Result<Outcome, Error> {
    let mut finalizers = scene.object.finalizers().to_vec();
    finalizers.push(names::FINALIZER.to_owned());
    let written = write(scene, &finalizers).await.and_then(|written| match written {
        Some(app) if !app.finalizers().iter().any(|f| f == names::FINALIZER) => {
            let how = format!(
                "an admission webhook or policy takes the finalizer {} off again; exempt GracefulApps from it",
                names::FINALIZER
            );
            Err(Error::Altered { what: "write the finalizer", how })
        }
        written => Ok(written),
    });
    match written {
        Ok(Some(_)) => {
            scene.writes.refusals.cleared(&Subject::Finalizer);
            Ok(Outcome::Done)
        }
        Ok(None) => Ok(CHANGED),
        Err(error) if error.not_found() => Ok(CHANGED),
        Err(error) => super::back_off(scene, Subject::Finalizer, error, |why| {
            format!("the GracefulApp cannot be given its finalizer, and nothing is made without it: {why}")
        }),
    }
}

pub(super) async fn release(scene: &mut Scene<'_>) -> Result<Outcome, Error> {
    let finalizers: Vec<_> =
        scene.object.finalizers().iter().filter(|f| *f != names::FINALIZER).cloned().collect();
    match write(scene, &finalizers).await {
        Ok(Some(_)) => Ok(Outcome::Done),
        Ok(None) => Ok(CHANGED),
        Err(error) if error.not_found() => Ok(Outcome::Done),
        Err(error) => Err(error),
    }
}

/// The whole list, on the very object that was seen: a finalizer that another controller has added meanwhile is not lost. None is a conflict.
async fn write(scene: &Scene<'_>, finalizers: &[String]) -> Result<Option<Decoded<GracefulApp>>, Error> {
    let patch = json!({"metadata": {
        "uid": scene.object.metadata.uid,
        "resourceVersion": scene.object.metadata.resource_version,
        "finalizers": finalizers,
    }});
    let params = merge(Mode::Real);
    let name = scene.object.name_any();
    let api = scene.api::<Decoded<GracefulApp>>();
    match call("write the finalizer", api.patch(&name, &params, &Patch::Merge(patch))).await {
        Err(error) if error.conflict() => Ok(None),
        written => written.map(Some),
    }
}
