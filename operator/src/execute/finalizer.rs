//! Our finalizer: on before anything is made that needs cleaning up, off when nothing of ours is left.

use graceful_api::{GracefulApp, names};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{CHANGED, Outcome, Scene};
use crate::decode::Decoded;
use crate::error::{Error, call};

pub(super) async fn add(scene: &mut Scene<'_>) -> Result<Outcome, Error> {
    let mut finalizers = scene.object.finalizers().to_vec();
    finalizers.push(names::FINALIZER.to_owned());
    write(scene, &finalizers).await
}

pub(super) async fn release(scene: &mut Scene<'_>) -> Result<Outcome, Error> {
    let finalizers: Vec<_> =
        scene.object.finalizers().iter().filter(|f| *f != names::FINALIZER).cloned().collect();
    write(scene, &finalizers).await
}

/// The whole list, on the very object that was seen: a finalizer that another controller has added meanwhile is not lost.
async fn write(scene: &Scene<'_>, finalizers: &[String]) -> Result<Outcome, Error> {
    let patch = json!({"metadata": {
        "uid": scene.object.metadata.uid,
        "resourceVersion": scene.object.metadata.resource_version,
        "finalizers": finalizers,
    }});
    let params =
        PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let name = scene.object.name_any();
    let api = scene.api::<Decoded<GracefulApp>>();
    match call("write the finalizer", api.patch(&name, &params, &Patch::Merge(patch))).await {
        Ok(_) => Ok(Outcome::Done),
        Err(error) if error.not_found() => Ok(Outcome::Done),
        Err(error) if error.conflict() => Ok(CHANGED),
        Err(error) => Err(error),
    }
}
