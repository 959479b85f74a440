//! The managed Service and the PodDisruptionBudget: applied as wanted, or removed.

use graceful_api::names;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

use super::{Outcome, Scene};
use crate::error::{Error, call};
use crate::memory::Held;
use crate::observe::{Kind, Wanted};

pub(super) async fn sync_service(scene: &mut Scene<'_>) -> Result<Outcome, Error> {
    let name = names::service_name(&scene.object.name_any());
    match scene.seen.wanted.service.clone() {
        Some(wanted) => apply::<Service>(scene, Kind::Service, "Service", &name, wanted).await,
        None => remove::<Service>(scene, Kind::Service, &name).await,
    }
}

pub(super) async fn sync_budget(scene: &mut Scene<'_>) -> Result<Outcome, Error> {
    let name = names::pdb_name(&scene.object.name_any());
    match scene.seen.wanted.budget.clone() {
        Some(wanted) => {
            apply::<PodDisruptionBudget>(scene, Kind::Budget, "PodDisruptionBudget", &name, wanted).await
        }
        None => remove::<PodDisruptionBudget>(scene, Kind::Budget, &name).await,
    }
}

/// By server-side apply: what others set on it (a load balancer's own annotations) stays.
async fn apply<K>(
    scene: &mut Scene<'_>,
    kind: Kind,
    word: &'static str,
    name: &str,
    wanted: Wanted,
) -> Result<Outcome, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    let Wanted { object, fingerprint } = wanted;
    match call("apply a child", scene.api::<K>().patch(name, &params, &Patch::Apply(object))).await {
        Ok(applied) => {
            scene.memory.refused.remove(word);
            scene.memory.written.wrote(kind, &applied);
            Ok(Outcome::Done)
        }
        Err(error) if scene.namespace_goes(&error) => Ok(Outcome::Done),
        Err(error) => match error.denial() {
            // Said in a condition, and no reason to hold up what else there is to do.
            Some(why) => {
                scene.memory.refused.insert(word, Held::new((fingerprint, why.clone())));
                Ok(Outcome::Refused(why))
            }
            None => Err(error),
        },
    }
}

/// Only ours: the object that carries this app's uid as it was looked at just now.
async fn remove<K>(scene: &mut Scene<'_>, kind: Kind, name: &str) -> Result<Outcome, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api = scene.api::<K>();
    let Some(found) = call("read a child", api.get_opt(name)).await? else {
        return Ok(Outcome::Done);
    };
    let ours = found.meta().annotations.as_ref().and_then(|a| a.get(names::APP_UID));
    if ours != scene.object.metadata.uid.as_ref() {
        return Ok(Outcome::Done);
    }
    let uid = found.meta().uid.clone().unwrap_or_default();
    let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: None };
    let params = DeleteParams::background().preconditions(preconditions);
    match call("remove a child", api.delete(name, &params)).await {
        Ok(_) => scene.memory.written.removed(kind, name, &uid),
        Err(error) if error.not_found() || error.conflict() => {}
        Err(error) => return Err(error),
    }
    Ok(Outcome::Done)
}
